package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// addresses lets cmp look at addresses.
var addresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// server is one without labels.
func server(name, target string) Server {
	t := netip.MustParseAddrPort(target)
	return Server{Name: name, Addr: t.Addr(), Port: t.Port()}
}

func TestSift(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name    string
		entries []Entry
		before  []Server
		servers []Server
		refused []Refusal
	}{
		{
			name:    "nothing",
			servers: []Server{},
		},
		{
			name: "named by itself or by its target",
			entries: []Entry{
				{Target: "192.0.2.1:80"},
				{Target: "[2001:db8::1]:8080"},
				{Target: "[::ffff:192.0.2.2]:80"},
				{Name: "i-0a", Target: "192.0.2.3:80"},
			},
			servers: []Server{
				server("192.0.2.1:80", "192.0.2.1:80"),
				server("192.0.2.2:80", "192.0.2.2:80"),
				server("2001:db8::1.8080", "[2001:db8::1]:8080"),
				server("i-0a", "192.0.2.3:80"),
			},
		},
		{
			name: "labels",
			entries: []Entry{
				{Name: "a", Target: "192.0.2.1:80", Labels: map[string]string{
					LabelWeight: "256", LabelZone: "eu-west-1a", LabelGroup: "web/blue", LabelExclude: "no",
					"__meta_url": huge, "other": "a b;\n",
				}},
				{Name: "b", Target: "192.0.2.2:80", Labels: map[string]string{LabelExclude: "TRUE"}},
				{Name: "c", Target: "192.0.2.3:80", Labels: map[string]string{LabelWeight: "0"}},
				{Name: "d", Target: "192.0.2.4:80", Labels: map[string]string{LabelWeight: "", LabelExclude: "", LabelZone: ""}},
			},
			servers: []Server{
				{"a", netip.MustParseAddr("192.0.2.1"), 80, Labels{256, "eu-west-1a", "web/blue", false}},
				{"b", netip.MustParseAddr("192.0.2.2"), 80, Labels{0, "", "", true}},
				{"c", netip.MustParseAddr("192.0.2.3"), 80, Labels{0, "", "", true}},
				server("d", "192.0.2.4:80"),
			},
		},
		{
			name: "targets that are none",
			entries: []Entry{
				{Name: "good", Target: "192.0.2.1:80"},
				{Name: "n01", Target: ""},
				{Name: "n02", Target: "192.0.2.1"},
				{Name: "n03", Target: "192.0.2.1:0"},
				{Name: "n04", Target: "192.0.2.1:99999"},
				{Name: "n05", Target: "192.0.2.1:-80"},
				{Name: "n06", Target: "192.0.2.1:+80"},
				{Name: "n07", Target: "192.0.2.1:80 weight 0"},
				{Name: "n08", Target: "web.example.com:80"},
				{Name: "n09", Target: "2001:db8::1:80"},
				{Name: "n10", Target: "[fe80::1%eth0]:80"},
				{Name: "n11", Target: "[fe80::1]:80"},
				{Name: "n12", Target: "0.0.0.0:80"},
				{Name: "n13", Target: "[ff02::1]:80"},
				{Name: "n14", Target: "255.255.255.255:80"},
				{Name: "n15", Target: "192.0.2.1\n;set server a/b state drain:80"},
				{Name: "n16", Target: huge},
				{Name: "n17", Target: "192.0.2.1:http"},
				{Name: "n18", Target: "192.0.2.9:80", Fault: "gone\nsince"},
			},
			servers: []Server{server("good", "192.0.2.1:80")},
			refused: []Refusal{
				{"n01", "it has no target"},
				{"n02", "the target 192.0.2.1 is not ADDRESS:PORT"},
				{"n03", "the port 0 is not between 1 and 65535"},
				{"n04", "the port 99999 is not between 1 and 65535"},
				{"n05", "the port -80 is not between 1 and 65535"},
				{"n06", "the port +80 is not between 1 and 65535"},
				{"n07", `the port "80 weight 0" is not between 1 and 65535`},
				{"n08", "web.example.com is no IP address (host names are for dns_srv)"},
				{"n09", "the target 2001:db8::1:80 is not ADDRESS:PORT"},
				{"n10", "the address fe80::1%eth0 has a zone, which differs from host to host"},
				{"n11", "the address fe80::1 is not reachable without naming a device"},
				{"n12", "the address 0.0.0.0 is not that of one server"},
				{"n13", "the address ff02::1 is not that of one server"},
				{"n14", "the address 255.255.255.255 is not that of one server"},
				{"n15", `"192.0.2.1\n;set server a/b state drain" is no IP address (host names are for dns_srv)`},
				{"n16", "the target " + huge[:80] + "... (1048576 bytes) is not ADDRESS:PORT"},
				{"n17", "the port http is not between 1 and 65535"},
				{"n18", "gone since"},
			},
		},
		{
			name: "names that are none",
			entries: []Entry{
				{Name: "web 1", Target: "192.0.2.1:80"},
				{Name: "web;1", Target: "192.0.2.2:80"},
				{Name: "web\n1", Target: "192.0.2.3:80"},
				{Name: "wéb", Target: "192.0.2.4:80"},
				{Name: "w\xffb", Target: "192.0.2.5:80"},
				{Name: huge, Target: "192.0.2.6:80"},
				{Name: "a/b", Target: "192.0.2.7:80"},
				{Name: strings.Repeat("y", 255), Target: "192.0.2.8:80"},
			},
			servers: []Server{server(strings.Repeat("y", 255), "192.0.2.8:80")},
			refused: []Refusal{
				{`"w\u00e9b"`, `the name has "\u00e9" in it, and may have letters, digits and . _ : -`},
				{`"w\xffb"`, `the name has "\xff" in it, and may have letters, digits and . _ : -`},
				{`"web 1"`, `the name has " " in it, and may have letters, digits and . _ : -`},
				{`"web\n1"`, `the name has "\n" in it, and may have letters, digits and . _ : -`},
				{"a/b", `the name has "/" in it, and may have letters, digits and . _ : -`},
				{"web;1", `the name has ";" in it, and may have letters, digits and . _ : -`},
				{huge[:80] + "... (1048576 bytes)", "the name has 1048576 bytes, and 255 is the most"},
			},
		},
		{
			name: "labels that are none",
			entries: []Entry{
				{Name: "l1", Target: "192.0.2.1:80", Labels: map[string]string{LabelWeight: "257"}},
				{Name: "l2", Target: "192.0.2.2:80", Labels: map[string]string{LabelWeight: "-1"}},
				{Name: "l3", Target: "192.0.2.3:80", Labels: map[string]string{LabelWeight: "1.5"}},
				{Name: "l4", Target: "192.0.2.4:80", Labels: map[string]string{LabelExclude: "maybe"}},
				{Name: "l5", Target: "192.0.2.5:80", Labels: map[string]string{LabelExclude: huge}},
				{Name: "l6", Target: "192.0.2.6:80", Labels: map[string]string{LabelZone: huge}},
				{Name: "l7", Target: "192.0.2.7:80", Labels: map[string]string{LabelGroup: "a b"}},
				{Name: "l8", Target: "192.0.2.8:80", Labels: map[string]string{LabelGroup: "a;b"}},
			},
			servers: []Server{},
			refused: []Refusal{
				{"l1", "the weight 257 is not a whole number from 0 to 256"},
				{"l2", "the weight -1 is not a whole number from 0 to 256"},
				{"l3", "the weight 1.5 is not a whole number from 0 to 256"},
				{"l4", "exclude_from_loadbalancer maybe is neither true nor false"},
				{"l5", "exclude_from_loadbalancer " + huge[:80] + "... (1048576 bytes) is neither true nor false"},
				{"l6", "the zone has 1048576 bytes, and 255 is the most"},
				{"l7", `the group has " " in it`},
				{"l8", `the group has ";" in it`},
			},
		},
		{
			name: "two that cannot both be",
			entries: []Entry{
				{Name: "b", Target: "192.0.2.1:80"},
				{Name: "a", Target: "192.0.2.1:80"},
				{Name: "c", Target: "192.0.2.1:81"},
				{Name: "d", Target: "192.0.2.5:80"},
				{Name: "d", Target: "192.0.2.4:80"},
				{Name: "e", Target: "192.0.2.6:80"},
				{Name: "e", Target: "192.0.2.6:80", Labels: map[string]string{LabelExclude: "true"}},
				{Name: "f", Target: "[::ffff:192.0.2.6]:80"},
			},
			servers: []Server{
				server("a", "192.0.2.1:80"),
				server("c", "192.0.2.1:81"),
				server("d", "192.0.2.4:80"),
				{"e", netip.MustParseAddr("192.0.2.6"), 80, Labels{Excluded: true}},
			},
			refused: []Refusal{
				{"b", "192.0.2.1:80 is the address of a already"},
				{"d", "192.0.2.5:80 has a name that 192.0.2.4:80 has already"},
				{"e", "it is in the list twice"},
				{"f", "192.0.2.6:80 is the address of e already"},
			},
		},
		{
			name: "one of the list before stays",
			entries: []Entry{
				{Name: "a", Target: "192.0.2.1:80"},
				{Name: "b", Target: "192.0.2.1:80"},
				{Name: "c", Target: "192.0.2.2:80"},
				{Name: "c", Target: "192.0.2.3:80", Labels: map[string]string{LabelWeight: "9"}},
			},
			before: []Server{server("b", "192.0.2.1:80"), server("c", "192.0.2.3:80"), server("d", "192.0.2.9:80")},
			servers: []Server{
				server("b", "192.0.2.1:80"),
				{"c", netip.MustParseAddr("192.0.2.3"), 80, Labels{Weight: 9}},
			},
			refused: []Refusal{
				{"a", "192.0.2.1:80 is the address of b already"},
				{"c", "192.0.2.2:80 has a name that 192.0.2.3:80 has already"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 10 {
				servers, refused := sift(tt.entries, tt.before)
				if diff := cmp.Diff(tt.servers, servers, addresses); diff != "" {
					t.Errorf("servers (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.refused, refused, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("refused (-want +got):\n%s", diff)
				}
				// The order of the entries makes no difference.
				rand.Shuffle(len(tt.entries), func(i, j int) {
					tt.entries[i], tt.entries[j] = tt.entries[j], tt.entries[i]
				})
			}
		})
	}
}

// FuzzSift: whatever comes in, what goes out can be given to HAProxy, and what is
// said of it can be shown.
func FuzzSift(f *testing.F) {
	f.Add("web-1", "192.0.2.1:80", "10", "true", "a", "b", "")
	f.Add("web 1;\n", "[2001:db8::1%x]:99999", "-1", "perhaps", "\"", "\x00", "\xff")
	f.Add("", "192.0.2.1:80", "0", "", "", "", "")
	f.Add("0", "0", "0", "0", "0", "0", "\x1a")
	f.Fuzz(func(t *testing.T, name, target, weight, exclude, zone, group, fault string) {
		entry := Entry{name, target, map[string]string{
			LabelWeight: weight, LabelExclude: exclude, LabelZone: zone, LabelGroup: group,
		}, fault}
		servers, refused := sift([]Entry{entry, {Name: "x", Target: target}, {Target: target}}, nil)
		if len(servers)+len(refused) != 3 {
			t.Fatalf("3 entries became %d servers and %d refusals", len(servers), len(refused))
		}
		for _, s := range servers {
			requireFit(t, s)
		}
		for _, r := range refused {
			for _, text := range []string{r.Entry, r.Reason} {
				if text == "" || len(text) > maxMessage+3 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("refusal %q cannot be shown", text)
				}
			}
		}
	})
}

// requireFit fails unless HAProxy can be given the server.
func requireFit(t *testing.T, s Server) {
	t.Helper()
	const tokens = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	switch {
	case s.Name == "" || len(s.Name) > 255 || strings.Trim(s.Name, tokens) != "":
		t.Errorf("name %q", s.Name)
	case !s.Addr.IsValid() || s.Addr.Zone() != "" || s.Addr.Is4In6() || s.Addr.IsUnspecified() || s.Addr.IsMulticast():
		t.Errorf("address %v", s.Addr)
	case s.Port == 0:
		t.Error("port 0")
	case s.Weight < 0 || s.Weight > 256:
		t.Errorf("weight %d", s.Weight)
	case len(s.Zone) > 255 || len(s.Group) > 255 || strings.ContainsAny(s.Zone+s.Group, " ;\"\n\\#<>"):
		t.Errorf("zone %q, group %q", s.Zone, s.Group)
	}
}

func TestShown(t *testing.T) {
	for in, want := range map[string]string{
		"":                        `""`,
		"web-1":                   "web-1",
		"a b":                     `"a b"`,
		`a"b`:                     `"a\"b"`,
		strings.Repeat("x", 81):   strings.Repeat("x", 80) + "... (81 bytes)",
		strings.Repeat("\n", 80):  `"` + strings.Repeat(`\n`, 79) + `\"...`,
		strings.Repeat("\x00", 9): `"` + strings.Repeat(`\x00`, 9) + `"`,
	} {
		if got := shown(in); got != want {
			t.Errorf("shown(%q) = %s, want %s", in, got, want)
		}
	}
}

func BenchmarkSift(b *testing.B) {
	var entries []Entry
	for i := range MaxServers {
		entries = append(entries, Entry{
			Name:   fmt.Sprintf("i-%08x", rand.Uint32()),
			Target: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256),
			Labels: map[string]string{LabelZone: "a", LabelWeight: "10"},
		})
	}
	entries = slices.Clip(entries)
	for b.Loop() {
		if servers, _ := sift(entries, nil); len(servers) < MaxServers-1 {
			b.Fatal(len(servers))
		}
	}
}
