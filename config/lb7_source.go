package config

import (
	"math"
	"strings"
	"time"
)

const (
	defaultHTTPInterval  = 5 * time.Second
	defaultSourceTimeout = 5 * time.Second
	defaultHTTPWait      = 30 * time.Second
	defaultAWSInterval   = 10 * time.Second
	defaultAWSTimeout    = 30 * time.Second
	defaultConsulWait    = 5 * time.Minute
	defaultConsulTimeout = 10 * time.Second
	defaultConsulAgent   = "http://127.0.0.1:8500"
	defaultDNSTimeout    = 2 * time.Second
	defaultMinTTL        = time.Second
	defaultMaxTTL        = time.Minute
	maxConsulWait        = 10 * time.Minute // Consul's own bound
	maxASGs              = 256
	maxResolvers         = 8
	minSourceInterval    = 100 * time.Millisecond
	minDescribeInterval  = time.Second // the account's requests are counted
	maxSourceInterval    = time.Hour
	minSourceTimeout     = 100 * time.Millisecond
	maxSourceTimeout     = 5 * time.Minute
	maxHTTPWait          = 10 * time.Minute
	maxDNSName           = 253 // RFC 1035 section 2.3.4, without the last dot
)

// keys are the keys of each sort of source, besides the one that names
// it.
func (r *rawSource) keys() map[string][]given {
	return map[string][]given{
		"file":    {},
		"http":    {r.interval.given, r.timeout.given, r.wait.given, r.tokenFile.given},
		"dns_srv": {r.servers.given, r.family.given, r.minTTL.given, r.maxTTL.given, r.timeout.given},
		"aws_asg": {r.port.given, r.region.given, r.endpoint.given, r.interval.given, r.timeout.given},
		"consul":  {r.agent.given, r.datacenter.given, r.tag.given, r.wait.given, r.timeout.given, r.tokenFile.given},
	}
}

// serverSource validates [backend.NAME.source].
func (c *checker) serverSource(r *rawSource) Source {
	sorts := []struct {
		key string
		given
	}{
		{"file", r.file.given}, {"http", r.http.given}, {"dns_srv", r.dnsSRV.given},
		{"aws_asg", r.awsASG.given}, {"consul", r.consul.given},
	}
	chosen := ""
	for _, s := range sorts {
		switch {
		case !s.present:
		case chosen != "":
			c.fault(s.place, "there is %s = too, and the servers come from one source; leave one of them out", chosen)
		default:
			chosen = s.key
		}
	}
	if chosen == "" {
		c.fault(r.place, `names no source; write file = "/etc/lb/servers.json", or http, dns_srv, aws_asg or consul`)
		return Source{}
	}
	keys := r.keys()
	mine := map[string]bool{}
	for _, k := range keys[chosen] {
		mine[k.key] = k.present
	}
	told := map[string]bool{}
	for _, s := range sorts {
		for _, k := range keys[s.key] {
			if k.present && !mine[k.key] && !told[k.key] {
				told[k.key] = true
				c.misplaced("for "+chosen, k)
			}
		}
	}
	switch chosen {
	case "http":
		return Source{HTTP: c.httpSource(r)}
	case "dns_srv":
		return Source{DNS: c.dnsSource(r)}
	case "aws_asg":
		return Source{AWS: c.awsSource(r)}
	case "consul":
		return Source{Consul: c.consulSource(r)}
	}
	return Source{File: &FileSource{Path: c.filePath(r.file, "", maxPath)}}
}

func (c *checker) httpSource(r *rawSource) *HTTPSource {
	wait := c.duration(r.wait, defaultHTTPWait, 0, maxHTTPWait)
	if wait%time.Second != 0 {
		c.fault(r.wait.place, `%s is no whole number of seconds, as the request needs it; write "30s", or "0s" for none`, quote(r.wait.value))
	}
	return &HTTPSource{
		URL:       c.url(r.http, "", `"http://127.0.0.1:8080/servers"`),
		Interval:  c.duration(r.interval, defaultHTTPInterval, minSourceInterval, maxSourceInterval),
		Timeout:   c.duration(r.timeout, defaultSourceTimeout, minSourceTimeout, maxSourceTimeout),
		Wait:      wait,
		TokenFile: c.filePath(r.tokenFile, "", maxPath),
	}
}

func (c *checker) dnsSource(r *rawSource) *DNSSource {
	name := strings.TrimSuffix(r.dnsSRV.value, ".")
	if r.dnsSRV.ok && (name == "" || len(name) > maxDNSName || strings.Trim(name, letters+digits+".-_") != "" || strings.Contains(name, "..")) {
		c.fault(r.dnsSRV.place, `%s is not the name of SRV records; write one such as "_http._tcp.web.example.com"`, quote(r.dnsSRV.value))
	}
	if len(r.servers.values) > maxResolvers {
		c.fault(r.servers.place, "there are %d resolvers; write at most %d", len(r.servers.values), maxResolvers)
	}
	d := &DNSSource{
		Name:    r.dnsSRV.value,
		Servers: c.addrPorts(r.servers, "192.0.2.53:53"),
		Family:  int(c.integer(r.family, 0, 0, 6)),
		MinTTL:  c.duration(r.minTTL, defaultMinTTL, minSourceInterval, maxSourceInterval),
		MaxTTL:  c.duration(r.maxTTL, defaultMaxTTL, minSourceInterval, maxSourceInterval),
		Timeout: c.duration(r.timeout, defaultDNSTimeout, minSourceTimeout, maxSourceTimeout),
	}
	if d.Family != 0 && d.Family != 4 && d.Family != 6 {
		c.fault(r.family.place, "%d is no address family; write 4 or 6, or leave the key out for either", d.Family)
	}
	if d.MinTTL > d.MaxTTL {
		at := r.minTTL.place
		if !r.minTTL.present {
			at = r.maxTTL.place
		}
		c.fault(at, "min_ttl is %s and max_ttl is %s; write a max_ttl that is no less", spell(d.MinTTL), spell(d.MaxTTL))
	}
	return d
}

func (c *checker) awsSource(r *rawSource) *AWSSource {
	a := &AWSSource{
		Port:     uint16(c.integer(r.port, 0, 1, math.MaxUint16)),
		Region:   c.word(r.region, `a region such as "eu-west-3"`),
		Endpoint: c.url(r.endpoint, "", `"http://127.0.0.1:4566"`),
		Interval: c.duration(r.interval, defaultAWSInterval, minDescribeInterval, maxSourceInterval),
		Timeout:  c.duration(r.timeout, defaultAWSTimeout, minSourceTimeout, maxSourceTimeout),
	}
	if !r.port.present {
		c.fault(r.child("port"), "is missing; write the port of the servers, which AWS does not tell, such as port = 80")
	}
	switch n := len(r.awsASG.values); {
	case r.awsASG.ok && n == 0:
		c.fault(r.awsASG.place, `the list is empty; write the names of Auto Scaling groups, such as ["web-eu"]`)
	case n > maxASGs:
		c.fault(r.awsASG.place, "there are %d groups; write at most %d", n, maxASGs)
	}
	for _, g := range r.awsASG.values {
		if g.ok && (g.value == "" || len(g.value) > 255 || hasControl(g.value)) {
			c.fault(g.place, "%s is not the name of an Auto Scaling group; write 1 to 255 characters", quote(g.value))
		}
		a.Groups = append(a.Groups, g.value)
	}
	return a
}

func (c *checker) consulSource(r *rawSource) *ConsulSource {
	s := &ConsulSource{
		Service:    c.word(r.consul, `the name of the service, such as "web"`),
		URL:        c.url(r.agent, defaultConsulAgent, `"`+defaultConsulAgent+`"`),
		Datacenter: c.word(r.datacenter, `a datacenter's name such as "dc1"`),
		Tag:        c.word(r.tag, `a tag such as "production"`),
		Wait:       c.duration(r.wait, defaultConsulWait, time.Second, maxConsulWait),
		Timeout:    c.duration(r.timeout, defaultConsulTimeout, minSourceTimeout, maxSourceTimeout),
		TokenFile:  c.filePath(r.tokenFile, "", maxPath),
	}
	return s
}
