package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The defaults of [directory.NAME], each with its reason in
// reference-lb7d.toml.
const (
	defaultDirectoryListen  = "127.0.0.1:6281"
	defaultDirectoryForward = "/run/haproxy/directory.sock"
	defaultDirectoryTimeout = time.Second
	defaultDirectoryTTL     = 10 * time.Minute
	defaultNegativeTTL      = 30 * time.Second
	defaultMaxEntries       = 200_000
	defaultMaxCalls         = 16
	defaultCallRate         = 500
	defaultMaxRequests      = 4096
	// maxDirectories bounds the maps of one HAProxy.
	maxDirectories = 16
)

// Directory looks up the back end of each host and keeps it in a HAProxy map.
type Directory struct {
	Name string
	// URL is asked for one host, in the place of {host}; BulkURL for all, each
	// BulkInterval. An empty BulkURL: never.
	URL, BulkURL string
	BulkInterval time.Duration
	Map          string
	// Socket, Process and HAProxyTimeout are those of HAProxy's Runtime API.
	Socket, Process string
	HAProxyTimeout  time.Duration
	// Listen is where misses come in, Forward where HAProxy takes them back: an
	// absolute path, or IP:PORT.
	Listen, Forward string
	UsageTable      string // empty: none
	Timeout         time.Duration
	TTL             time.Duration
	NegativeTTL     time.Duration
	MaxEntries      int
	MaxCalls        int
	CallRate        int
	MaxRequests     int
	DefaultBackend  string   // empty: 404
	Backends        []string // none: HAProxy's
}

// rawDirectory is [directory.NAME].
type rawDirectory struct {
	table
	url            text
	bulkURL        text
	bulkInterval   text
	mapFile        text
	socket         text
	listen         text
	forward        text
	usageTable     text
	timeout        text
	ttl            text
	negativeTTL    text
	maxEntries     number
	maxCalls       number
	callRate       number
	maxRequests    number
	defaultBackend text
	backends       texts
}

func (r *rawDirectory) fields() []field {
	return []field{
		{"url", &r.url, `"http://127.0.0.1:6280/backend/{host}"`},
		{"bulk_url", &r.bulkURL, `"http://127.0.0.1:6280/backends"`},
		{"bulk_interval", &r.bulkInterval, `"5m"`},
		{"map", &r.mapFile, `"/etc/haproxy/pods.map"`},
		{"socket", &r.socket, `"/run/haproxy/admin.sock"`},
		{"listen", &r.listen, `"127.0.0.1:6281"`},
		{"forward", &r.forward, `"/run/haproxy/directory.sock"`},
		{"usage_table", &r.usageTable, `"used_hosts"`},
		{"timeout", &r.timeout, `"1s"`},
		{"ttl", &r.ttl, `"10m"`},
		{"negative_ttl", &r.negativeTTL, `"30s"`},
		{"max_entries", &r.maxEntries, "200000"},
		{"max_calls", &r.maxCalls, "16"},
		{"call_rate", &r.callRate, "500"},
		{"max_requests", &r.maxRequests, "4096"},
		{"default_backend", &r.defaultBackend, `"pod0"`},
		{"backends", &r.backends, `["pod0", "pod1"]`},
	}
}

// directories validates [directory.NAME].
func (c *checker) directories(raw *rawLB7, haproxy *HAProxy) []Directory {
	entries := raw.directories.entries
	if len(entries) > maxDirectories {
		c.fault(raw.directories.place, "there are %d directories; write at most %d", len(entries), maxDirectories)
		return nil
	}
	var all []Directory
	maps := map[string]string{}    // whose map a file is
	listens := map[string]string{} // who listens at an address
	for _, r := range entries {
		if !r.ok {
			continue
		}
		d := c.directory(r, haproxy)
		if other := maps[d.Map]; other != "" && d.Map != "" {
			c.fault(r.mapFile.place, "%s is the map of [directory.%s] too; write another", quotePath(d.Map), other)
		}
		maps[d.Map] = r.name
		if other := listens[d.Listen]; other != "" {
			c.fault(orOf(r.listen.given, r.table.place), "[directory.%s] listens at %s too; write another listen =", other, d.Listen)
		}
		listens[d.Listen] = r.name
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Directory) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// orOf is the place of a key, or that of its table where it is left out.
func orOf(g given, table place) place {
	if g.present {
		return g.place
	}
	return table
}

func (c *checker) directory(r *rawDirectory, haproxy *HAProxy) Directory {
	d := Directory{
		Name:           r.name,
		Map:            c.filePath(r.mapFile, "", maxPath),
		Socket:         defaultHAProxySocket,
		HAProxyTimeout: defaultHAProxyTimeout,
		Listen:         c.endpoint(r.listen, defaultDirectoryListen, "where HAProxy sends misses"),
		Forward:        c.endpoint(r.forward, defaultDirectoryForward, "where HAProxy takes requests back"),
		UsageTable:     c.haproxyName(r.usageTable, "a stick table"),
		Timeout:        c.duration(r.timeout, defaultDirectoryTimeout, 10*time.Millisecond, time.Minute),
		TTL:            c.duration(r.ttl, defaultDirectoryTTL, time.Second, 24*time.Hour),
		NegativeTTL:    c.duration(r.negativeTTL, defaultNegativeTTL, 100*time.Millisecond, time.Hour),
		MaxEntries:     int(c.integer(r.maxEntries, defaultMaxEntries, 1, 1_000_000)),
		MaxCalls:       int(c.integer(r.maxCalls, defaultMaxCalls, 1, 1024)),
		CallRate:       int(c.integer(r.callRate, defaultCallRate, 1, 100_000)),
		MaxRequests:    int(c.integer(r.maxRequests, defaultMaxRequests, 1, 100_000)),
		DefaultBackend: c.haproxyName(r.defaultBackend, "a back end"),
	}
	if !r.url.present {
		c.fault(r.child("url"), `is missing; write where to ask for a host, such as url = "http://127.0.0.1:6280/backend/{host}"`)
	}
	d.URL = r.url.value
	if r.url.ok {
		if fault := badURL(strings.ReplaceAll(d.URL, "{host}", "host")); fault != "" {
			c.fault(r.url.place, `%s; write one such as "http://127.0.0.1:6280/backend/{host}"`, fault)
		} else if !strings.Contains(d.URL, "{host}") {
			c.fault(r.url.place, `has no {host}, in whose place the host is put; write one such as "http://127.0.0.1:6280/backend/{host}"`)
		}
	}
	if d.BulkURL = c.url(r.bulkURL, "", `"http://127.0.0.1:6280/backends"`); d.BulkURL == "" {
		c.misplaced("without bulk_url", r.bulkInterval.given)
	}
	d.BulkInterval = c.duration(r.bulkInterval, max(d.TTL/2, time.Second), time.Second, 24*time.Hour)
	if !r.mapFile.present {
		c.fault(r.child("map"), `is missing; write the file that HAProxy's configuration names, such as map = "/etc/haproxy/pods.map"`)
	} else if strings.ContainsAny(d.Map, " \t;\\") || strings.Contains(d.Map, "<<") {
		c.fault(r.mapFile.place, "%s holds a blank, a semicolon or a backslash, which HAProxy's Runtime API cannot be told; write another path", quotePath(d.Map))
	}
	switch {
	case r.socket.ok:
		d.Socket = c.endpoint(r.socket, defaultHAProxySocket, "HAProxy's stats socket")
	case haproxy != nil:
		d.Socket, d.Process, d.HAProxyTimeout = haproxy.Socket, haproxy.Process, haproxy.Timeout
	}
	if d.Forward == d.Listen {
		c.fault(orOf(r.forward.given, r.table.place), "is where misses come in; write the address of HAProxy's frontend that takes them back")
	}
	if r.backends.ok && len(r.backends.values) == 0 {
		c.fault(r.backends.place, "the list is empty, so no answer would be right; write the back ends, or leave the key out for all that HAProxy has")
	}
	for _, b := range r.backends.values {
		name := c.haproxyName(b, "a back end")
		if slices.Contains(d.Backends, name) {
			c.fault(b.place, "%s is in the list twice; leave one of them out", quote(name))
		}
		d.Backends = append(d.Backends, name)
	}
	return d
}

// endpoint is an absolute path of a socket, or an address with a port.
func (c *checker) endpoint(t text, fallback, what string) string {
	if !t.ok {
		return fallback
	}
	if strings.HasPrefix(t.value, "/") {
		return c.filePath(t, fallback, maxSocket)
	}
	at, err := netip.ParseAddrPort(t.value)
	switch {
	case err != nil:
		c.fault(t.place, "%s is neither an absolute path nor an address and a port; write %s, such as %q", quote(t.value), what, fallback)
		return fallback
	case at.Port() == 0:
		c.fault(t.place, "%s has port 0; write a number from 1 to 65535", quote(t.value))
	}
	return at.String()
}

// haproxyName is a name as HAProxy's configuration has it, or empty.
func (c *checker) haproxyName(t text, what string) string {
	if !t.ok {
		return ""
	}
	if t.value == "" || len(t.value) > 255 || strings.Trim(t.value, letters+digits+"._:-") != "" {
		c.fault(t.place, "%s is no name of %s in HAProxy; write letters, digits, and . _ : - only", quote(t.value), what)
	}
	return t.value
}
