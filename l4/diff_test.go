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

// mark is a service of a firewall mark.
func mark(mark uint32, ipv6 bool, destinations ...Destination) Service {
	return Service{Key: MarkKey(mark, ipv6), Scheduler: "rr", Destinations: destinations}
}

// up is a destination with the weight that it has when it is up.
func up(addr string, weight int) Destination {
	return Destination{Addr: netip.MustParseAddr(addr), Port: 80, Weight: weight, FullWeight: weight, Encapsulation: IPIP}
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
	const a, b, c, d = "192.0.2.139", "192.0.2.140", "192.0.2.141", "192.0.2.142"
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
				d.ActiveConns, d.InactiveConns = 7, 3
			})), func(s *Service) { s.Flags |= hashed })},
			wanted: Table{www(up(a, 1))},
		},
		{
			name:   "the order in which destinations are wanted is no difference",
			listed: Table{www(up(a, 1), up(b, 1))},
			wanted: Table{www(up(b, 1), up(a, 1))},
		},
		{
			name:   "from nothing: the last one first, and the scheduler after them",
			wanted: Table{www(up(b, 2), up(a, 1))},
			want: []string{
				"add service 198.51.100.1:80/tcp scheduler none flags mh-fallback,mh-port",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 2 ipip",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip",
				"edit service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port" +
					" (was scheduler none flags mh-fallback,mh-port)",
			},
		},
		{
			name:   "from nothing, one destination: nothing to wait for",
			wanted: Table{www(up(a, 1))},
			want: []string{
				"add service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip",
			},
		},
		{
			name:   "a service whose making was cut short",
			listed: Table{with(www(up(b, 1)), func(s *Service) { s.Scheduler = "none" })},
			wanted: Table{www(up(a, 1), up(b, 1))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip",
				"edit service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port" +
					" (was scheduler none flags mh-fallback,mh-port)",
			},
		},
		{
			name:   "IPv6, and an IPv6 VIP over an IPv4 underlay",
			wanted: Table{www6(up("2001:db8::c000:28b", 1), up(a, 1))},
			want: []string{
				"add service [2001:db8::c633:6401]:80/tcp scheduler none flags mh-fallback,mh-port",
				"add destination [2001:db8::c633:6401]:80/tcp -> [2001:db8::c000:28b]:80 weight 1 ipip",
				"add destination [2001:db8::c633:6401]:80/tcp -> 192.0.2.139:80 weight 1 ipip",
				"edit service [2001:db8::c633:6401]:80/tcp scheduler mh flags mh-fallback,mh-port" +
					" (was scheduler none flags mh-fallback,mh-port)",
			},
		},
		{
			name: "encapsulations",
			wanted: Table{with(www(
				with(up(a, 1), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort }),
				with(up(b, 1), func(d *Destination) { d.Encapsulation = GRE }),
			), func(s *Service) { s.Scheduler = "wlc" })},
			listed: Table{with(www(
				with(up(a, 1), func(d *Destination) { d.Encapsulation, d.GUEPort, d.Checksummed = GUE, DefaultGUEPort, true }),
				with(up(b, 1), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, 6081 }),
			), func(s *Service) { s.Scheduler = "wlc" })},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 gue port 6080 (was weight 1 gue port 6080 checksummed)",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 gre (was weight 1 gue port 6081)",
			},
		},
		{
			name:   "the service of a firewall mark",
			listed: Table{mark(7, false, with(up(b, 1), func(d *Destination) { d.Port = 0 }))},
			wanted: Table{
				mark(7, false, with(up(a, 1), func(d *Destination) { d.Port = 0 })),
				mark(7, true, with(up(a, 1), func(d *Destination) { d.Port = 0 })),
			},
			want: []string{
				"add destination fwmark 7 -> 192.0.2.139:0 weight 1 ipip",
				"add service fwmark 7 IPv6 scheduler rr",
				"add destination fwmark 7 IPv6 -> 192.0.2.139:0 weight 1 ipip",
				"delete destination fwmark 7 -> 192.0.2.140:0",
			},
		},
		{
			name:   "one that belongs behind the others moves them before it",
			listed: Table{www(up(a, 1), up(b, 1), up(d, 1))},
			wanted: Table{www(up(a, 1), up(b, 1), up(c, 1), up(d, 1))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 ipip",
				"move destination 198.51.100.1:80/tcp -> 192.0.2.140:80 to the head, weight 1 ipip",
				"move destination 198.51.100.1:80/tcp -> 192.0.2.139:80 to the head, weight 1 ipip",
			},
		},
		{
			name:   "one that moves is as wanted afterwards",
			listed: Table{www(up(b, 1), up(a, 1))},
			wanted: Table{www(with(draining(a, 2), func(d *Destination) { d.Encapsulation = GRE }), up(b, 1))},
			want: []string{
				"move destination 198.51.100.1:80/tcp -> 192.0.2.139:80 to the head, weight 0 of 2 gre (was weight 1 ipip)",
			},
		},
		{
			name:   "where the order does not matter nothing moves",
			listed: Table{with(www(up(b, 1), up(a, 1)), func(s *Service) { s.Scheduler = "wlc" })},
			wanted: Table{with(www(up(a, 1), up(b, 1)), func(s *Service) { s.Scheduler = "wlc" })},
		},
		{
			name:   "order before scheduler",
			listed: Table{with(www(up(b, 1), up(a, 1)), func(s *Service) { s.Scheduler = "wlc" })},
			wanted: Table{www(up(a, 1), up(b, 1))},
			want: []string{
				"move destination 198.51.100.1:80/tcp -> 192.0.2.139:80 to the head, weight 1 ipip",
				"edit service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port" +
					" (was scheduler wlc flags mh-fallback,mh-port)",
			},
		},
		{
			name:   "a draining destination is added with its slots",
			listed: Table{www(up(b, 1))},
			wanted: Table{www(draining(a, 3), up(b, 1))},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 3 ipip",
			},
		},
		{
			name:   "one that leaves gives its slots up and keeps its flows",
			listed: Table{www(up(a, 1), up(b, 1), up(c, 1))},
			wanted: Table{www(up(a, 1), draining(b, 0), up(c, 1))},
			want: []string{
				"move destination 198.51.100.1:80/tcp -> 192.0.2.140:80 to the head, weight 0 of 0 ipip (was weight 1 ipip)",
			},
		},
		{
			name:   "one without slots may stand anywhere",
			listed: Table{www(up(a, 1), draining(b, 0), draining(d, 0), up(c, 1))},
			wanted: Table{www(up(a, 1), draining(b, 0), draining(d, 0), up(c, 1))},
		},
		{
			name: "slots that nobody noted are made sure of",
			listed: Table{www(
				with(draining(a, 0), func(d *Destination) { d.FullWeight = UnknownWeight }),
				with(draining(b, 0), func(d *Destination) { d.FullWeight = UnknownWeight }),
				with(draining(c, 0), func(d *Destination) { d.FullWeight = UnknownWeight }),
			)},
			wanted: Table{www(
				draining(a, 2),
				draining(b, 0),
				with(draining(c, 0), func(d *Destination) { d.FullWeight = UnknownWeight }),
			)},
			want: []string{
				"move destination 198.51.100.1:80/tcp -> 192.0.2.140:80 to the head, weight 0 of 0 ipip (was weight 0 of ? ipip)",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 2 ipip (was weight 0 of ? ipip)",
			},
		},
		{
			name:   "another weight while draining",
			listed: Table{www(up(a, 1), draining(b, 1))},
			wanted: Table{www(up(a, 1), draining(b, 3))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 of 3 ipip (was weight 0 of 1 ipip)",
			},
		},
		{
			name:   "a drain is one edit",
			listed: Table{www(up(a, 1), up(b, 1))},
			wanted: Table{www(up(a, 1), draining(b, 1))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 of 1 ipip (was weight 1 ipip)",
			},
		},
		{
			name:   "the returning come before the new, these before the leaving",
			listed: Table{www(up(b, 1), draining(c, 1))},
			wanted: Table{www(up(a, 1), draining(b, 1), up(c, 1))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 ipip (was weight 0 of 1 ipip)",
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 of 1 ipip (was weight 1 ipip)",
			},
		},
		{
			name: "another forwarding method is edited",
			listed: Table{www(
				with(up(a, 1), func(d *Destination) { d.Encapsulation = None }),
				with(up(b, 1), func(d *Destination) { d.Limited = true }),
			)},
			wanted: Table{www(up(a, 1), up(b, 1))},
			want: []string{
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip (was weight 1 no tunnel)",
				"edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 ipip (was weight 1 ipip limited)",
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
				www(up(b, 1), up(c, 1)),
			},
			wanted: Table{
				www(up(a, 1), up(c, 1)),
				with(www(up(a, 1)), func(s *Service) { s.Port, s.Protocol = 443, UDP }),
			},
			want: []string{
				"add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip",
				"add service 198.51.100.1:443/udp scheduler mh flags mh-fallback,mh-port",
				"add destination 198.51.100.1:443/udp -> 192.0.2.139:80 weight 1 ipip",
				"delete destination 198.51.100.1:80/tcp -> 192.0.2.140:80",
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
