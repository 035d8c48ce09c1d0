package config

import "slices"

// The raw tables have the shape of the file. Their fields lists are the one
// place where a key gets its name; the reference file is tested against them.

// rawFile is the file as a whole.
type rawFile struct {
	table
	maintenanceFile text
	stateDir        text
	checkMark       number
	control         rawControl
	bgp             rawBGP
	http            rawHTTP
	damping         rawDamping
	pools           tables[rawPool, *rawPool]
	services        tables[rawService, *rawService]
}

func (r *rawFile) fields() []field {
	return []field{
		{"maintenance_file", &r.maintenanceFile, `"/etc/lb/disable"`},
		{"state_dir", &r.stateDir, `"/var/lib/lb"`},
		{"check_mark", &r.checkMark, "0x4c420000"},
		{"control", section{&r.control}, "[control]"},
		{"bgp", section{&r.bgp}, "[bgp]"},
		{"http", section{&r.http}, "[http]"},
		{"damping", section{&r.damping}, "[damping]"},
		{"pool", &r.pools, "[pool.lb7]"},
		{"service", &r.services, "[service.www]"},
	}
}

// rawControl is [control].
type rawControl struct {
	table
	socket text
	group  text
}

func (r *rawControl) fields() []field {
	return []field{
		{"socket", &r.socket, `"/run/lb/lb4d.sock"`},
		{"group", &r.group, `"lb"`},
	}
}

// rawHTTP is [http].
type rawHTTP struct {
	table
	listen text
}

func (r *rawHTTP) fields() []field {
	return []field{
		{"listen", &r.listen, `"127.0.0.1:9404"`},
	}
}

// rawDamping is [damping].
type rawDamping struct {
	table
	tolerate    number
	holdDown    text
	maxHoldDown text
	forgetAfter text
}

func (r *rawDamping) fields() []field {
	return []field{
		{"tolerate", &r.tolerate, "2"},
		{"hold_down", &r.holdDown, `"10s"`},
		{"max_hold_down", &r.maxHoldDown, `"5m"`},
		{"forget_after", &r.forgetAfter, `"5m"`},
	}
}

// rawBGP is [bgp].
type rawBGP struct {
	table
	as              number
	routerID        text
	holdTime        text
	listenPort      number
	gracefulRestart text
	drainTime       text
	drainMED        number
	drainPrepend    number
	multihop        number
	ttlSecurity     boolean
	siblings        boolean
	siblingsSettle  text
	prefixLimit     number
	rawAttributes
	community namedTexts
	peers     tables[rawPeer, *rawPeer]
}

func (r *rawBGP) fields() []field {
	return slices.Concat([]field{
		{"as", &r.as, "65000"},
		{"router_id", &r.routerID, `"192.0.2.132"`},
		{"hold_time", &r.holdTime, `"6s"`},
		{"multihop", &r.multihop, "2"},
		{"ttl_security", &r.ttlSecurity, "true"},
		{"listen_port", &r.listenPort, "179"},
		{"graceful_restart", &r.gracefulRestart, `"60s"`},
		{"drain_time", &r.drainTime, `"5s"`},
		{"drain_med", &r.drainMED, "1000"},
		{"drain_prepend", &r.drainPrepend, "3"},
		{"siblings", &r.siblings, "false"},
		{"siblings_settle", &r.siblingsSettle, `"30s"`},
		{"prefix_limit", &r.prefixLimit, "100000"},
	}, r.attributeFields(), []field{
		{"community", &r.community, "[bgp.community]"},
		{"peer", &r.peers, "[bgp.peer.rr1]"},
	})
}

// rawPeer is [bgp.peer.NAME].
type rawPeer struct {
	table
	address         text
	port            number
	as              number
	passwordFile    text
	holdTime        text
	gracefulRestart text
	multihop        number
	ttlSecurity     boolean
	sourceAddress   text
	passive         boolean
	families        texts
	siblings        boolean
	prefixLimit     number
	bfd             rawBFD
	rawAttributes
}

func (r *rawPeer) fields() []field {
	return slices.Concat([]field{
		{"address", &r.address, `"192.0.2.254"`},
		{"port", &r.port, "179"},
		{"as", &r.as, "65000"},
		{"password_file", &r.passwordFile, `"/etc/lb/rr1.key"`},
		{"hold_time", &r.holdTime, `"6s"`},
		{"graceful_restart", &r.gracefulRestart, `"60s"`},
		{"multihop", &r.multihop, "2"},
		{"ttl_security", &r.ttlSecurity, "true"},
		{"source_address", &r.sourceAddress, `"192.0.2.132"`},
		{"passive", &r.passive, "true"},
		{"families", &r.families, `["ipv4", "ipv6"]`},
		{"siblings", &r.siblings, "false"},
		{"prefix_limit", &r.prefixLimit, "100000"},
		{"bfd", section{&r.bfd}, `{ interval = "300ms", multiplier = 3 }`},
	}, r.attributeFields())
}

// rawBFD is [bgp.peer.NAME.bfd].
type rawBFD struct {
	table
	interval   text
	multiplier number
	multihop   boolean
}

func (r *rawBFD) fields() []field {
	return []field{
		{"interval", &r.interval, `"300ms"`},
		{"multiplier", &r.multiplier, "3"},
		{"multihop", &r.multihop, "true"},
	}
}

// rawPool is [pool.NAME].
type rawPool struct {
	table
	encapsulation text
	guePort       number
	purgeAfter    text
	members       texts
	member        tables[rawMember, *rawMember]
	check         rawCheck
}

func (r *rawPool) fields() []field {
	return []field{
		{"encapsulation", &r.encapsulation, `"ipip"`},
		{"gue_port", &r.guePort, "6080"},
		{"purge_after", &r.purgeAfter, `"30s"`},
		{"members", &r.members, `["192.0.2.139", "192.0.2.140"]`},
		{"member", &r.member, "[pool.lb7.member.lb7-1]"},
		{"check", section{&r.check}, "[pool.lb7.check]"},
	}
}

// rawMember is [pool.NAME.member.NAME].
type rawMember struct {
	table
	address  text
	address6 text
	weight   number
}

func (r *rawMember) fields() []field {
	return []field{
		{"address", &r.address, `"192.0.2.139"`},
		{"address6", &r.address6, `"2001:db8::c000:28b"`},
		{"weight", &r.weight, "1"},
	}
}

// rawCheck is [pool.NAME.check].
type rawCheck struct {
	table
	http         text
	tcp          boolean
	host         text
	port         number
	expectStatus numbers
	drainStatus  numbers
	interval     text
	timeout      text
	rise         number
	fall         number
	via          text
	mtu          number
	mtuRequired  boolean
}

func (r *rawCheck) fields() []field {
	return []field{
		{"http", &r.http, `"/healthcheck"`},
		{"tcp", &r.tcp, "true"},
		{"host", &r.host, `"www.example.com"`},
		{"port", &r.port, "80"},
		{"expect_status", &r.expectStatus, "[200]"},
		{"drain_status", &r.drainStatus, "[503]"},
		{"interval", &r.interval, `"1s"`},
		{"timeout", &r.timeout, `"500ms"`},
		{"rise", &r.rise, "2"},
		{"fall", &r.fall, "3"},
		{"via", &r.via, `"direct"`},
		{"mtu", &r.mtu, "1500"},
		{"mtu_required", &r.mtuRequired, "true"},
	}
}

// rawService is [service.NAME].
type rawService struct {
	table
	vips          texts
	ports         texts
	pool          text
	quorum        share
	quorumRestore share
	scheduler     text
	flags         texts
	bgp           rawServiceBGP
}

func (r *rawService) fields() []field {
	return []field{
		{"vips", &r.vips, `["198.51.100.1"]`},
		{"ports", &r.ports, `["80/tcp", "443/udp"]`},
		{"pool", &r.pool, `"lb7"`},
		{"quorum", &r.quorum, `1 or "50%"`},
		{"quorum_restore", &r.quorumRestore, `2 or "75%"`},
		{"scheduler", &r.scheduler, `"mh"`},
		{"flags", &r.flags, `["mh-port", "mh-fallback"]`},
		{"bgp", section{&r.bgp}, "[service.www.bgp]"},
	}
}

// rawServiceBGP is [service.NAME.bgp].
type rawServiceBGP struct {
	table
	rawAttributes
}

func (r *rawServiceBGP) fields() []field { return r.attributeFields() }
