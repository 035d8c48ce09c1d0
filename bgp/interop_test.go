package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// router is another implementation of BGP at the other end of an interface.
type router interface {
	// everything is its table, one line for each path, sorted.
	everything(t *testing.T) []string
	// withdrawn are the prefixes that were withdrawn so far, in that order.
	withdrawn(t *testing.T) []string
	// nextHops are those that its kernel has for a prefix.
	nextHops(t *testing.T, prefix string) []string
	// watch notes what its kernel loses.
	watch(t *testing.T) *losses
}

// seen is a path as a router shows it.
type seen struct {
	prefix, path, hop, med, pref string
	communities                  []string
}

// shown is what routers agree on, as lines.
func shown(paths []seen) []string {
	var lines []string
	for _, p := range paths {
		line := fmt.Sprintf("%s path [%s] via %s", p.prefix, p.path, p.hop)
		if p.med != "" {
			line += " med " + p.med
		}
		if p.pref != "" {
			line += " pref " + p.pref
		}
		slices.SortFunc(p.communities, func(a, b string) int {
			return cmp.Or(cmp.Compare(strings.Count(a, ":"), strings.Count(b, ":")), cmp.Compare(a, b))
		})
		lines = append(lines, strings.TrimSpace(line+" "+strings.Join(p.communities, " ")))
	}
	slices.Sort(lines)
	return lines
}

// first are the first groups of all matches.
func first(re *regexp.Regexp, text string) []string {
	var all []string
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// sessions are what a router is configured with: one session over IPv4 with
// both families or, where split, one over each family with that family, for
// each host. The second host is 192.0.2.133, on the same link.
type sessions struct {
	as          uint32
	password    string
	ttlSecurity bool
	split       bool
	hosts       int
	// keeps tells that the router keeps the routes of a host that restarts.
	keeps bool
}

// neighbor is one session as a router sees it.
type configured struct {
	name, address, local string
	v4, v6               bool
}

func (c sessions) neighbors() []configured {
	var all []configured
	for i := range max(1, c.hosts) {
		v4 := fmt.Sprintf("192.0.2.%d", 132+i)
		all = append(all, configured{fmt.Sprintf("host%d", i), v4, "192.0.2.254", true, !c.split})
		if c.split {
			all = append(all, configured{fmt.Sprintf("host%dv6", i), fmt.Sprintf("2001:db8::%x", 0x84+i), "2001:db8::fe", false, true})
		}
	}
	return all
}

var routers = []struct {
	name string
	// pref is what it shows for an external route that says nothing of it.
	pref string
	// obeys tells that it prefers all others to a route that drains.
	obeys bool
	start func(*testing.T, sessions) router
}{
	{"BIRD", " pref 100", true, func(t *testing.T, c sessions) router {
		config := `
protocol kernel { ipv4 { export all; }; merge paths on; }
protocol kernel { ipv6 { export all; }; merge paths on; }
filter incoming {
  if (65535,0) ~ bgp_community then bgp_local_pref = 0; # RFC 8326 section 4.1
  accept;
}
`
		for _, n := range c.neighbors() {
			config += fmt.Sprintf("protocol bgp %s {\n  local as %d;\n  neighbor %s as 65000;\n  source address %s;\n  direct;\n  passive;\n",
				n.name, c.as, n.address, n.local)
			if c.password != "" {
				config += fmt.Sprintf("  password %q;\n", c.password)
			}
			if c.ttlSecurity {
				config += "  ttl security on;\n"
			}
			if !c.keeps {
				config += "  graceful restart off;\n"
			}
			for family, carried := range map[string]bool{"ipv4": n.v4, "ipv6": n.v6} {
				if carried {
					config += "  " + family + " { import filter incoming; export none; };\n"
				}
			}
			config += "}\n"
		}
		return startBird(t, config, both, there)
	}},
	{"FRR", "", true, func(t *testing.T, c sessions) router {
		config := fmt.Sprintf("%d\n bgp router-id 192.0.2.254\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n", c.as)
		families := map[string]string{
			"ipv4": " maximum-paths 4\n maximum-paths ibgp 4\n",
			"ipv6": " maximum-paths 4\n maximum-paths ibgp 4\n",
		}
		for _, n := range c.neighbors() {
			neighbor := " neighbor " + n.address + " "
			config += neighbor + "remote-as 65000\n" + neighbor + "passive\n"
			if c.password != "" {
				config += neighbor + "password " + c.password + "\n"
			}
			if c.ttlSecurity {
				config += neighbor + "ttl-security hops 1\n"
			}
			if !c.keeps {
				config += neighbor + "graceful-restart-disable\n"
			}
			// By itself it lowers what an external peer drains, and nothing of
			// an internal one.
			activate := neighbor + "activate\n" + neighbor + "route-map incoming in\n"
			if n.v4 {
				families["ipv4"] += activate
			}
			if n.v6 {
				families["ipv6"] += activate
			}
		}
		for _, f := range []string{"ipv4", "ipv6"} {
			config += " address-family " + f + " unicast\n" + families[f] + " exit-address-family\n"
		}
		config += `exit
bgp community-list standard draining permit graceful-shutdown
route-map incoming permit 10
 match community draining
 set local-preference 0
route-map incoming permit 20
`
		return startFRR(t, config, both, there)
	}},
	{"GoBGP", "", false, func(t *testing.T, c sessions) router {
		config := fmt.Sprintf("[global.config]\nas = %d\nrouter-id = \"192.0.2.254\"\n", c.as)
		for _, n := range c.neighbors() {
			config += fmt.Sprintf("[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = 65000\nauth-password = %q\n[neighbors.transport.config]\npassive-mode = true\n",
				n.address, c.password)
			if c.ttlSecurity {
				config += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n"
			}
			if c.keeps {
				config += "[neighbors.graceful-restart.config]\nenabled = true\n"
			}
			for family, carried := range map[string]bool{"ipv4": n.v4, "ipv6": n.v6} {
				if carried {
					config += fmt.Sprintf("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"%s-unicast\"\n", family)
					if c.keeps {
						config += "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
					}
				}
			}
		}
		return startGobgpd(t, config, both, there)
	}},
}

// both are the addresses of two hosts, which are one machine here.
var both = append(slices.Clone(here), "192.0.2.133/24", "2001:db8::85/64")

func awaitEverything(t *testing.T, r router, want ...string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		diff := gocmp.Diff(want, r.everything(t))
		return diff == "", "table of the router (-want +got):\n" + diff
	})
}

// Each router, as an internal and as an external peer: the session comes up
// with a password and TTL security, both families arrive with all that is said
// of them, a change replaces them, and GRACEFUL_SHUTDOWN is seen before the
// withdrawal.
func TestInterop(t *testing.T) {
	const v4, v6 = "198.51.100.1/32", "2001:db8:1::1/128"
	for _, test := range routers {
		for _, as := range []uint32{65000, 65010} {
			t.Run(fmt.Sprintf("%s/%d", test.name, as), func(t *testing.T) {
				r := test.start(t, sessions{as: as, password: "sesame", ttlSecurity: true})
				s, book := startSpeaker(t, Options{})
				p := overIPv4(as)
				p.Password, p.TTLSecurity = "sesame", true
				p.Attributes = Attributes{
					Communities:      []uint32{65000<<16 | 100, 65000<<16 | 200},
					LargeCommunities: [][3]uint32{{65000, 1, 2}, {4200000000, 3, 4}},
					MED:              new(uint32(50)),
				}
				path, pref := "", " pref 90"
				if as == 65000 {
					p.Attributes.LocalPreference = new(uint32(90))
				} else {
					p.Attributes.Prepend = new(2)
					path, pref = "65000 65000 65000", test.pref
				}
				line := func(prefix, med, communities string) string {
					hop := "192.0.2.132"
					if prefix == v6 {
						hop = "2001:db8::84"
					}
					return fmt.Sprintf("%s path [%s] via %s med %s%s %s 4200000000:3:4 65000:1:2", prefix, path, hop, med, pref, communities)
				}
				set := func(routes ...Route) {
					t.Helper()
					if err := s.Set(routes); err != nil {
						t.Fatal(err)
					}
				}
				set(prefixes(v4, v6)...)
				s.establish(t, p)
				awaitEverything(t, r, line(v4, "50", "65000:100 65000:200"), line(v6, "50", "65000:100 65000:200"))

				// A route's own MED, then the peer's other community.
				set(with(v4, Attributes{MED: new(uint32(60))}), prefixes(v6)[0])
				awaitEverything(t, r, line(v4, "60", "65000:100 65000:200"), line(v6, "50", "65000:100 65000:200"))
				p.Attributes.Communities = []uint32{65000<<16 | 300}
				s.establish(t, p)
				awaitEverything(t, r, line(v4, "60", "65000:300"), line(v6, "50", "65000:300"))

				if test.obeys {
					pref = " pref 0"
				}
				set(draining(v4), draining(v6))
				awaitEverything(t, r, line(v4, "50", "65000:300 65535:0"), line(v6, "50", "65000:300 65535:0"))
				if w := r.withdrawn(t); len(w) != 0 {
					t.Errorf("withdrawn before the end: %q", w)
				}
				set()
				awaitEverything(t, r)
				eventually(t, func() (bool, string) {
					w := r.withdrawn(t)
					slices.Sort(w)
					return slices.Equal(w, []string{v4, v6}), fmt.Sprintf("withdrawn: %q", w)
				})
				if strings.Contains(book.String(), "sesame") {
					t.Errorf("the log shows a password:\n%s", book)
				}
			})
		}
	}
}

// Each family over a session of its own.
func TestInteropTwoSessions(t *testing.T) {
	for _, test := range routers {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t, sessions{as: 65000, password: "sesame", split: true})
			s, _ := startSpeaker(t, Options{})
			if err := s.Set(prefixes("198.51.100.1/32", "2001:db8:1::1/128")); err != nil {
				t.Fatal(err)
			}
			v4, v6 := overIPv4(65000), overIPv6(65000)
			v4.Families, v6.Families = IPv4, IPv6
			v4.Password, v6.Password = "sesame", "sesame"
			v6.Source = netip.MustParseAddr("2001:db8::84") // and not that of the second host
			s.establish(t, v4, v6)
			awaitState(t, s, "over6", stateEstablished)
			awaitEverything(t, r, "198.51.100.1/32 path [] via 192.0.2.132 pref 100", "2001:db8:1::1/128 path [] via 2001:db8::84 pref 100")
			for _, p := range s.Peers() {
				if p.Advertised != 1 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// TTL security on one side alone ends the session.
func TestInteropTTLSecurity(t *testing.T) {
	r := routers[0].start(t, sessions{as: 65000, ttlSecurity: true})
	s, _ := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	p := overIPv4(65000)
	p.TTLSecurity = true
	s.establish(t, p)
	awaitEverything(t, r, "198.51.100.1/32 path [] via 192.0.2.132 pref 100")
	p.TTLSecurity = false
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		p := status(t, s, "over4")
		return p.State != stateEstablished && p.LastError != "", fmt.Sprintf("%+v", p)
	})
	awaitEverything(t, r)
}

// Two hosts that say the same of a VIP share its traffic (ECMP); one with
// another MED is the other's standby; and one that drains is not asked any more
// before it withdraws.
func TestInteropTwoHosts(t *testing.T) {
	const v4, v6 = "198.51.100.1/32", "2001:db8:1::1/128"
	for _, test := range routers {
		if test.name == "GoBGP" {
			continue // it sets no routes
		}
		for _, as := range []uint32{65000, 65010} {
			t.Run(fmt.Sprintf("%s/%d", test.name, as), func(t *testing.T) {
				r := test.start(t, sessions{as: as, hosts: 2})
				var hosts [2]*Speaker
				var peers [2]Peer
				for i, address := range []string{"192.0.2.132", "192.0.2.133"} {
					hosts[i], _ = startSpeaker(t, Options{RouterID: netip.MustParseAddr(address)})
					peers[i] = overIPv4(as)
					peers[i].Source = netip.MustParseAddr(address)
					peers[i].Attributes = Attributes{MED: new(uint32(0)), NextHop6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x84+i))}
					if err := hosts[i].Set(prefixes(v4, v6)); err != nil {
						t.Fatal(err)
					}
					hosts[i].establish(t, peers[i])
				}
				hops := func(last ...int) {
					t.Helper()
					var want4, want6 []string
					for _, n := range last {
						want4 = append(want4, fmt.Sprintf("192.0.2.%d", n))
						want6 = append(want6, fmt.Sprintf("2001:db8::%x", n))
					}
					eventually(t, func() (bool, string) {
						got4, got6 := r.nextHops(t, v4), r.nextHops(t, v6)
						return slices.Equal(got4, want4) && slices.Equal(got6, want6),
							fmt.Sprintf("next hops %q %q, want %q %q; table\n%s", got4, got6, want4, want6, strings.Join(r.everything(t), "\n"))
					})
				}
				hops(132, 133)

				// The second becomes the standby of the first.
				peers[1].Attributes.MED = new(uint32(100))
				hosts[1].establish(t, peers[1])
				hops(132)
				// The first drains: the standby takes over before it withdraws.
				if err := hosts[0].Set([]Route{draining(v4), draining(v6)}); err != nil {
					t.Fatal(err)
				}
				hops(133)
				if w := r.withdrawn(t); len(w) != 0 {
					t.Errorf("withdrawn before the end: %q", w)
				}
				if err := hosts[0].Set(nil); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() (bool, string) {
					table := r.everything(t)
					return len(table) == 2, strings.Join(table, "\n")
				})
				hops(133)
				// It comes back.
				if err := hosts[0].Set(prefixes(v4, v6)); err != nil {
					t.Fatal(err)
				}
				hops(132)
			})
		}
	}
}
