package config

// The raw tables of lb7d.toml; see raw.go.

// rawLB7 is the file as a whole.
type rawLB7 struct {
	table
	stateDir   text
	control    rawLB7Control
	http       rawHTTP
	tunnel     rawTunnel
	agentCheck rawAgentCheck
	haproxy    rawHAProxy
	store      rawStore
	backends   tables[rawBackend, *rawBackend]

	directories tables[rawDirectory, *rawDirectory]
}

func (r *rawLB7) fields() []field {
	return []field{
		{"state_dir", &r.stateDir, `"/var/lib/lb"`},
		{"control", section{&r.control}, "[control]"},
		{"http", section{&r.http}, "[http]"},
		{"tunnel", section{&r.tunnel}, "[tunnel]"},
		{"agent_check", section{&r.agentCheck}, "[agent_check]"},
		{"haproxy", section{&r.haproxy}, "[haproxy]"},
		{"store", section{&r.store}, "[store]"},
		{"backend", &r.backends, "[backend.servers]"},
		{"directory", &r.directories, "[directory.pods]"},
	}
}

// rawLB7Control is [control].
type rawLB7Control struct{ rawControl }

func (r *rawLB7Control) fields() []field {
	return []field{
		{"socket", &r.socket, `"/run/lb/lb7d.sock"`},
		{"group", &r.group, `"lb"`},
	}
}

// rawAgentCheck is [agent_check].
type rawAgentCheck struct {
	table
	file   text
	listen texts
}

func (r *rawAgentCheck) fields() []field {
	return []field{
		{"file", &r.file, `"/etc/lb/agent-check"`},
		{"listen", &r.listen, `["127.0.0.1:5555"]`},
	}
}

// rawHAProxy is [haproxy].
type rawHAProxy struct {
	table
	socket   text
	process  text
	timeout  text
	stateMap text
}

func (r *rawHAProxy) fields() []field {
	return []field{
		{"socket", &r.socket, `"/run/haproxy/admin.sock"`},
		{"process", &r.process, `"@1"`},
		{"timeout", &r.timeout, `"5s"`},
		{"state_map", &r.stateMap, `"/var/lib/lb/host.map"`},
	}
}

// rawStore is [store].
type rawStore struct {
	table
	lease        text
	etcd         texts
	prefix       text
	username     text
	passwordFile text
	caFile       text
	certFile     text
	keyFile      text
	dynamodb     text
	region       text
	endpoint     text
	poll         text
	hsdoPort     number
}

func (r *rawStore) fields() []field {
	return []field{
		{"lease", &r.lease, `"5s"`},
		{"etcd", &r.etcd, `["http://127.0.0.1:2379"]`},
		{"prefix", &r.prefix, `"/lb7d"`},
		{"username", &r.username, `"lb7d"`},
		{"password_file", &r.passwordFile, `"/etc/lb/etcd.key"`},
		{"ca_file", &r.caFile, `"/etc/lb/etcd-ca.pem"`},
		{"cert_file", &r.certFile, `"/etc/lb/etcd-cert.pem"`},
		{"key_file", &r.keyFile, `"/etc/lb/etcd-key.pem"`},
		{"dynamodb", &r.dynamodb, `"haproxy-service-discovery-orchestrator"`},
		{"region", &r.region, `"eu-west-3"`},
		{"endpoint", &r.endpoint, `"http://127.0.0.1:4567"`},
		{"poll", &r.poll, `"1s"`},
		{"hsdo_port", &r.hsdoPort, "80"},
	}
}

// rawBackend is [backend.NAME].
type rawBackend struct {
	table
	slotsOf     text
	slots       number
	source      rawSource
	weight      number
	ramp        rawRamp
	maxShrink   text
	shrinkAfter text
	slotRest    text
	dynamodb    text
	groups      texts
	fallback    boolean
	all         boolean
	prefix      text
	include     rawInclude
}

func (r *rawBackend) fields() []field {
	return []field{
		{"slots", &r.slots, "10"},
		{"source", section{&r.source}, `source = { file = "/etc/lb/servers.json" }`},
		{"weight", &r.weight, "10"},
		{"ramp", section{&r.ramp}, `ramp = { from = 1, to = 10, step = 1, every = "30s" }`},
		{"max_shrink", &r.maxShrink, `"50%"`},
		{"shrink_after", &r.shrinkAfter, `"5m"`},
		{"slot_rest", &r.slotRest, `"1m"`},
		{"dynamodb", &r.dynamodb, `"web-slots"`},
		{"slots_of", &r.slotsOf, `"servers"`},
		{"groups", &r.groups, `["web-eu"]`},
		{"fallback", &r.fallback, "true"},
		{"all", &r.all, "true"},
		{"prefix", &r.prefix, `"s"`},
		{"include", section{&r.include}, "[backend.servers.include]"},
	}
}

// rawRamp is [backend.NAME.ramp].
type rawRamp struct {
	table
	from, to, step number
	every          text
}

func (r *rawRamp) fields() []field {
	return []field{
		{"from", &r.from, "1"},
		{"to", &r.to, "10"},
		{"step", &r.step, "1"},
		{"every", &r.every, `"30s"`},
	}
}

// rawInclude is [backend.NAME.include].
type rawInclude struct {
	table
	file, head, options text
}

func (r *rawInclude) fields() []field {
	return []field{
		{"file", &r.file, `"/etc/haproxy/conf.d/50-servers.cfg"`},
		{"head", &r.head, `"backend servers from servers-defaults"`},
		{"options", &r.options, `"check inter 1s"`},
	}
}

// rawSource is [backend.NAME.source].
type rawSource struct {
	table
	file       text
	http       text
	dnsSRV     text
	awsASG     texts
	consul     text
	interval   text
	timeout    text
	wait       text
	tokenFile  text
	servers    texts
	family     number
	minTTL     text
	maxTTL     text
	port       number
	region     text
	endpoint   text
	agent      text
	datacenter text
	tag        text
}

func (r *rawSource) fields() []field {
	return []field{
		{"file", &r.file, `"/etc/lb/servers.json"`},
		{"http", &r.http, `"http://127.0.0.1:8080/servers"`},
		{"dns_srv", &r.dnsSRV, `"_http._tcp.web.example.com"`},
		{"aws_asg", &r.awsASG, `["web-eu", "web-us"]`},
		{"consul", &r.consul, `"web"`},
		{"interval", &r.interval, `"10s"`},
		{"timeout", &r.timeout, `"5s"`},
		{"wait", &r.wait, `"30s"`},
		{"token_file", &r.tokenFile, `"/etc/lb/token"`},
		{"servers", &r.servers, `["192.0.2.53:53"]`},
		{"family", &r.family, "4"},
		{"min_ttl", &r.minTTL, `"1s"`},
		{"max_ttl", &r.maxTTL, `"1m"`},
		{"port", &r.port, "80"},
		{"region", &r.region, `"eu-west-3"`},
		{"endpoint", &r.endpoint, `"http://127.0.0.1:4566"`},
		{"agent", &r.agent, `"http://127.0.0.1:8500"`},
		{"datacenter", &r.datacenter, `"dc1"`},
		{"tag", &r.tag, `"production"`},
	}
}
