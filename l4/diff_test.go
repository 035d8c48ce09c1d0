package l4

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// www is a service of the usual kind, with the given destinations.
func www(destinations ...Destination) Service {
	return Service{
		Key:          Key{VIP: netip.MustParseAddr("198.51.100.1"), Port: 80, Protocol: TCP},
		Scheduler:    "mh",
		Flags:        MHFallback | MHPort,
		Destinations: destinations,
	}
}

// www6 is the same on an IPv6 VIP.
func www6(destinations ...Destination) Service {
	s := www(destinations...)
	s.VIP = netip.MustParseAddr("2001:db8::c633:6401")
	return s
}

// up is a destination with the weight that it has when it is up.
func up(addr string, weight int) Destination {
	return Destination{Addr: netip.MustParseAddr(addr), Port: 80, Weight: weight, FullWeight: weight, Tunnel: true}
}

// draining is a destination that would have the weight if it were up.
func draining(addr string, weight int) Destination {
	d := up(addr, weight)
	d.Weight = 0
	return d
}

// with changes a value in place of a long literal.
func with[T any](v T, change func(*T)) T {
	change(&v)
	return v
}

func TestDiff(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	tests := []struct {
		name           string
		listed, wanted Table
		want           []string
	}{
		{name: "nothing listed, nothing wanted"},
		{
			name:   "all is as wanted",
			listed: Table{www(up(a, 1), draining(b, 1))},
			wanted: Table{www(up(a, 1), draining(b, 1))},
		},
		{
			name: "what only the kernel knows is no difference",
			listed: Table{with(www(with(up(a, 1), func(d *Destination) {
				d.FullWeight, d.ActiveConns, d.InactiveConns = 0, 7, 3
			})), func(s *Service) { s.Flags |= hashed })},
			wanted: Table{www(up(a, 1))},
		},
		{
			name:   "another order of destinations is left as it is",
			listed: Table{www(up(a, 1), up(b, 1))},
			wanted: Table{www(up(b, 1), up(a, 1))},
		},
		{
			name:   "from nothing: the last one first, so that the list is in order",
			wanted: Table{www(up(a, 1), up(b, 2))},
			want: []string{
				"add service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 2 tunnel",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 tunnel",
			},
		},
		{
			name:   "IPv6, and an IPv6 VIP over an IPv4 underlay",
			wanted: Table{www6(up("2001:db8::c000:28b", 1), up(a, 1))},
			want: []string{
				"add service [2001:db8::c633:6401]:80/tcp scheduler mh flags mh-fallback,mh-port",
				"add destination [2001:db8::c633:6401]:80/tcp -> 192.0.2.139:80 weight 1 tunnel",
				"add destination [2001:db8::c633:6401]:80/tcp -> [2001:db8::c000:28b]:80 weight 1 tunnel",
			},
		},
		{
			name:   "a draining destination is added with its slots",
			listed: Table{www(up(a, 1))},
			wanted: Table{www(up(a, 1), draining(b, 3))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 3 tunnel",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 tunnel (was weight 3 tunnel)",
			},
		},
		{
			name:   "a destination that has no weight even when up",
			listed: Table{www(up(a, 1))},
			wanted: Table{www(up(a, 1), draining(b, 0))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 tunnel",
			},
		},
		{
			name:   "a drain is one edit",
			listed: Table{www(up(a, 1), up(b, 1))},
			wanted: Table{www(up(a, 1), draining(b, 1))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 tunnel (was weight 1 tunnel)",
			},
		},
		{
			name:   "the new come before the returning, these before the leaving",
			listed: Table{www(up(a, 1), draining(b, 1))},
			wanted: Table{www(draining(a, 1), up(b, 1), up(c, 1))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 tunnel",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 tunnel (was weight 0 tunnel)",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 tunnel (was weight 1 tunnel)",
			},
		},
		{
			name: "another forwarding method is edited",
			listed: Table{www(
				with(up(a, 1), func(d *Destination) { d.Tunnel = false }),
				with(up(b, 1), func(d *Destination) { d.Limited = true }),
			)},
			wanted: Table{www(up(a, 1), up(b, 1))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 tunnel (was weight 1 no ipip tunnel)",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 tunnel (was weight 1 tunnel limited)",
			},
		},
		{
			name: "scheduler and flags are edited in place",
			listed: Table{
				with(www(up(a, 1)), func(s *Service) { s.Scheduler, s.Flags = "wlc", hashed }),
				with(www6(), func(s *Service) { s.Flags = MHPort | Persistent | 0x20 }),
			},
			wanted: Table{www(up(a, 1)), www6()},
			want: []string{
				"edit service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port (was scheduler wlc)",
				"edit service [2001:db8::c633:6401]:80/tcp scheduler mh flags mh-fallback,mh-port" +
					" (was scheduler mh flags mh-port,persistent,0x20)",
			},
		},
		{
			name: "what is no longer wanted goes last",
			listed: Table{
				with(www(up(a, 1), up(b, 1)), func(s *Service) { s.Port = 443 }),
				www(up(a, 1), up(b, 1)),
			},
			wanted: Table{
				www(up(b, 1), up(c, 1)),
				with(www(up(a, 1)), func(s *Service) { s.Port, s.Protocol = 443, UDP }),
			},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 tunnel",
				"add service 198.51.100.1:443/udp scheduler mh flags mh-fallback,mh-port",
				"add destination 198.51.100.1:443/udp -> 192.0.2.139:80 weight 1 tunnel",
				"delete destination 198.51.100.1:80/tcp -> 192.0.2.139:80",
				"delete service 198.51.100.1:443/tcp",
			},
		},
		{
			name:   "nothing wanted",
			listed: Table{www(up(a, 1)), www6()},
			want: []string{
				"delete service 198.51.100.1:80/tcp",
				"delete service [2001:db8::c633:6401]:80/tcp",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, sentences(Diff(tt.listed, tt.wanted))); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
		})
	}
}

// sentences are the operations in words.
func sentences(ops []Op) []string {
	var s []string
	for _, op := range ops {
		s = append(s, op.String())
	}
	return s
}
