package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const leastDirectory = `
[directory.pods]
url = "http://127.0.0.1:6280/backend/{host}"
map = "/etc/haproxy/pods.map"
`

func TestDirectory(t *testing.T) {
	cfg, err := ParseLB7("lb7d.toml", []byte("[haproxy]\nsocket = \"/run/master.sock\"\nprocess = \"@1\"\n"+leastDirectory))
	if err != nil {
		t.Fatal(err)
	}
	want := []Directory{{
		Name: "pods", URL: "http://127.0.0.1:6280/backend/{host}", BulkInterval: 5 * time.Minute, Map: "/etc/haproxy/pods.map",
		Socket: "/run/master.sock", Process: "@1", HAProxyTimeout: 5 * time.Second,
		Listen: "127.0.0.1:6281", Forward: "/run/haproxy/directory.sock",
		Timeout: time.Second, TTL: 10 * time.Minute, NegativeTTL: 30 * time.Second,
		MaxEntries: 200_000, MaxCalls: 16, CallRate: 500, MaxRequests: 4096,
	}}
	if diff := cmp.Diff(want, cfg.Directories); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDirectoryFaults(t *testing.T) {
	for _, c := range []struct{ lines, want string }{
		{`url = "http://127.0.0.1/x"`, `lb7d.toml:5: directory.pods.url: has no {host}`},
		{`url = "ftp://127.0.0.1/{host}"`, `the URL begins with neither http:// nor https://`},
		{`bulk_interval = "1m"`, `lb7d.toml:5: directory.pods.bulk_interval: has no meaning without bulk_url`},
		{`map = "pods.map"`, `"pods.map" is not an absolute path`},
		{`map = "/etc/my pods.map"`, `holds a blank`},
		{`listen = "localhost:80"`, `"localhost:80" is neither an absolute path nor an address and a port; write where HAProxy sends misses, such as "127.0.0.1:6281"`},
		{`listen = "127.0.0.1:0"`, `has port 0`},
		{`forward = "127.0.0.1:6281"`, `is where misses come in`},
		{`usage_table = "used hosts"`, `"used hosts" is no name of a stick table in HAProxy`},
		{`timeout = "1h"`, `directory.pods.timeout`},
		{`ttl = "0s"`, `directory.pods.ttl`},
		{`negative_ttl = "2h"`, `directory.pods.negative_ttl`},
		{`max_entries = 0`, `0 is out of range; write 1 to 1000000`},
		{`default_backend = ""`, `"" is no name of a back end in HAProxy`},
		{`backends = []`, `the list is empty, so no answer would be right`},
		{`backends = ["pod0", "pod0"]`, `"pod0" is in the list twice`},
		{`max_entires = 1`, `max_entries`},
		{"[directory.two]\nurl = \"http://127.0.0.1/{host}\"\nmap = \"/etc/haproxy/pods.map\"\nlisten = \"127.0.0.1:7\"", `"/etc/haproxy/pods.map" is the map of [directory.pods] too`},
		{"[directory.two]\nurl = \"http://127.0.0.1/{host}\"\nmap = \"/etc/haproxy/two.map\"", `[directory.pods] listens at 127.0.0.1:6281 too`},
		{"[directory.two]\nmap = \"/etc/haproxy/two.map\"\nlisten = \"127.0.0.1:7\"", `directory.two.url: is missing`},
		{"[directory.two]\nurl = \"http://127.0.0.1/{host}\"\nlisten = \"127.0.0.1:7\"", `directory.two.map: is missing`},
	} {
		t.Run(c.lines, func(t *testing.T) {
			text := leastDirectory
			if key, _, ok := strings.Cut(c.lines, " "); ok { // instead of the one there is
				for line := range strings.Lines(text) {
					if strings.HasPrefix(line, key+" ") {
						text = strings.Replace(text, line, "", 1) + "\n"
					}
				}
			}
			_, err := ParseLB7("lb7d.toml", []byte(text+c.lines+"\n"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
