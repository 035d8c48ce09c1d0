package lab

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// small has one of each host but LB4, of which there are two: a file that a
// reader can check by eye.
var small = Sizes{Routers: 2, Reflectors: 1, LB4: 2, LB7: 1, Servers: 1, Users: 2}

// text writes a topology down, one fact a line.
func text(t *Topology) string {
	var b strings.Builder
	for _, s := range t.Segments {
		fmt.Fprintf(&b, "segment %s mtu %d\n", s.Name, s.MTU)
	}
	for _, h := range t.Hosts {
		fmt.Fprintf(&b, "\nhost %s role %s address %v %v\n", h.Name, h.Role, h.Address, h.Address6)
		for _, l := range h.Links {
			fmt.Fprintf(&b, "  link %s on %s %v\n", l.Device, l.Segment, l.Addresses)
		}
		for _, p := range h.Loopback {
			fmt.Fprintf(&b, "  loopback %v\n", p)
		}
		for _, r := range h.Routes {
			fmt.Fprintf(&b, "  route %v via %v\n", r.To, r.Via)
		}
		for _, s := range h.Sysctls[len(plain):] {
			fmt.Fprintf(&b, "  sysctl %s = %s\n", s.Key, s.Value)
		}
		for _, d := range h.Directories {
			fmt.Fprintf(&b, "  directory %s\n", d)
		}
		for _, p := range h.Processes {
			fmt.Fprintf(&b, "  process %s: %s\n", p.Name, strings.Join(p.Argv, " "))
		}
		for _, s := range h.Servers {
			fmt.Fprintf(&b, "  server %s %v %s\n", s.Kind, s.Listen, s.File)
		}
		for _, f := range h.Files {
			fmt.Fprintf(&b, "  file %s\n", f.Path)
			for line := range strings.Lines(f.Content) {
				fmt.Fprintf(&b, "    | %s", line)
			}
		}
	}
	return b.String()
}

func TestTopologyGolden(t *testing.T) {
	for _, tt := range []struct {
		rr       Reflector
		balancer Balancer
	}{{GoBGP, LB4D}, {BIRD, LB4D}, {GoBGP, Keepalived}} {
		name := string(tt.rr)
		if tt.balancer != LB4D {
			name = string(tt.balancer)
		}
		t.Run(name, func(t *testing.T) {
			top, err := NewTopology(small, tt.rr, tt.balancer)
			if err != nil {
				t.Fatal(err)
			}
			got := text(top)
			golden := filepath.Join("testdata", "small-"+name+".golden")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("topology (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAddresses names addresses of the plan that other documents rely on.
func TestAddresses(t *testing.T) {
	tests := []struct {
		sizes        Sizes
		host         string
		want4, want6 string
	}{
		{sizes: FullSizes, host: "R1", want4: "192.0.2.130", want6: "2001:db8::c000:282"},
		{sizes: FullSizes, host: "LB4-1", want4: "192.0.2.132", want6: "2001:db8::c000:284"},
		{sizes: FullSizes, host: "LB7-1", want4: "192.0.2.139", want6: "2001:db8::c000:28b"},
		{sizes: FullSizes, host: "LB7-13", want4: "192.0.2.151", want6: "2001:db8::c000:297"},
		{sizes: FullSizes, host: "RR1", want4: "192.0.2.254", want6: "2001:db8::c000:2fe"},
		{sizes: FullSizes, host: "S10", want6: "2001:db8:1:0:2::10"},
		{sizes: DefaultSizes, host: "LB7-1", want4: "192.0.2.135", want6: "2001:db8::c000:287"},
		{sizes: DefaultSizes, host: "RR2", want4: "192.0.2.253", want6: "2001:db8::c000:2fd"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d-%d/%s", tt.sizes.LB4, tt.sizes.LB7, tt.host), func(t *testing.T) {
			top, err := NewTopology(tt.sizes, GoBGP, LB4D)
			if err != nil {
				t.Fatal(err)
			}
			h, ok := top.Host(tt.host)
			if !ok {
				t.Fatalf("no host %s", tt.host)
			}
			if tt.want4 != "" && h.Address != netip.MustParseAddr(tt.want4) {
				t.Errorf("address %v, want %s", h.Address, tt.want4)
			}
			if h.Address6 != netip.MustParseAddr(tt.want6) {
				t.Errorf("IPv6 address %v, want %s", h.Address6, tt.want6)
			}
		})
	}
}

// TestTopologySound holds what every lab must have, at any size: no address
// or name twice, each next hop on a segment that the host is on.
func TestTopologySound(t *testing.T) {
	largest := Sizes{Routers: 8, Reflectors: 8, LB4: 40, LB7: 64, Servers: 200, Users: 254}
	for _, s := range []Sizes{small, DefaultSizes, FullSizes, largest} {
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			top, err := NewTopology(s, GoBGP, LB4D)
			if err != nil {
				t.Fatal(err)
			}
			names := make(map[string]bool)
			owner := make(map[netip.Addr]string)
			for _, h := range top.Hosts {
				if names[h.Name] {
					t.Errorf("two hosts are named %s", h.Name)
				}
				names[h.Name] = true
				for _, l := range h.Links {
					for _, p := range l.Addresses {
						if other := owner[p.Addr()]; other != "" {
							t.Errorf("%v is of %s and of %s", p.Addr(), other, h.Name)
						}
						owner[p.Addr()] = h.Name
					}
				}
				for _, r := range h.Routes {
					for _, via := range r.Via {
						if !onLink(&h, via) {
							t.Errorf("%s: next hop %v to %v is on none of its links", h.Name, via, r.To)
						}
					}
				}
				for _, f := range h.Files {
					if !underOwn(&h, f.Path) {
						t.Errorf("%s: %s is in a directory that all hosts share", h.Name, f.Path)
					}
				}
			}
			for _, h := range top.Hosts {
				for _, r := range h.Routes {
					for _, via := range r.Via {
						if owner[via] == "" {
							t.Errorf("%s: next hop %v to %v is nobody's address", h.Name, via, r.To)
						}
					}
				}
			}
		})
	}
}

func onLink(h *Host, a netip.Addr) bool {
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			if p.Masked().Contains(a) {
				return true
			}
		}
	}
	return false
}

func underOwn(h *Host, path string) bool {
	for _, d := range h.Directories {
		if strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}

func TestSizesRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Sizes)
		want   string
	}{
		{"no LB4", func(s *Sizes) { s.LB4 = 0 }, "0 LB4 hosts, not 1 to 64"},
		{"negative LB7", func(s *Sizes) { s.LB7 = -1 }, "-1 LB7 hosts, not 1 to 64"},
		{"too many servers", func(s *Sizes) { s.Servers = 1000 }, "1000 servers, not 1 to 200"},
		{"too many users", func(s *Sizes) { s.Users = 255 }, "255 user addresses, not 1 to 254"},
		{"segment full", func(s *Sizes) { s.LB4, s.LB7 = 60, 60 }, "124 routers, reflectors, LB4 and LB7 hosts together, not at most 120"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := DefaultSizes
			tt.change(&s)
			_, err := NewTopology(s, GoBGP, LB4D)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := NewTopology(DefaultSizes, "quagga", LB4D); err == nil {
		t.Error("an unknown reflector is accepted")
	}
}
