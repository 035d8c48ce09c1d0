package l4

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestKernelMaglev sends flows from random addresses and ports through the
// kernel's scheduler, for services of all kinds and histories, and compares
// the destination of each of them with the one that the model names.
func TestKernelMaglev(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	const a6, b6, c6 = "2001:db8::c000:28b", "2001:db8::c000:28c", "2001:db8::c000:28d"
	udp := func(s Service) Service { s.Protocol = UDP; return s }
	r := rand.New(rand.NewPCG(9, 9))
	var weighted, many Service
	weighted, many = udp(www()), udp(www6())
	for i := range 40 {
		weighted.Destinations = append(weighted.Destinations, up(fmt.Sprintf("192.0.2.%d", 10+i), 1+r.IntN(300)))
		d := up(fmt.Sprintf("2001:db8::%x:%x", r.IntN(65536), 10+i), 1+r.IntN(3))
		d.Port = uint16(1 + r.IntN(65535))
		if i%4 == 0 {
			d.Weight = 0
		}
		many.Destinations = append(many.Destinations, d)
	}

	openInNamespace(t) // skips the whole test, where it does
	flows := 0
	for _, tt := range []struct {
		name    string
		history []Service
	}{
		{"equal weights", []Service{udp(www(up(a, 1), up(b, 1), up(c, 1)))}},
		{"one destination", []Service{udp(www(up(a, 3)))}},
		{"weights that are shifted", []Service{udp(www(up(a, 1), up(b, 300), up(c, 65535)))}},
		{"forty weights", []Service{weighted}},
		{"without mh-port", []Service{with(udp(www(up(a, 2), up(b, 4), up(c, 6))), func(s *Service) { s.Flags = MHFallback })}},
		{"one drains", []Service{udp(www(up(a, 1), up(b, 2), up(c, 1))), udp(www(up(a, 1), draining(b, 2), up(c, 1)))}},
		{"two drain from the start", []Service{udp(www(draining(a, 1), draining(b, 2), up(c, 1)))}},
		{"one drains without mh-fallback", []Service{with(udp(www(draining(a, 1), up(b, 2))), func(s *Service) { s.Flags = MHPort })}},
		{"all drain", []Service{udp(www(draining(a, 1), draining(b, 2)))}},
		{"one leaves", []Service{udp(www(up(a, 1), up(b, 2), up(c, 1))), udp(www(up(a, 1), draining(b, 0), up(c, 1)))}},
		{"order and weights of another time", []Service{
			udp(www(up(b, 5), up(c, 1))), udp(www(draining(c, 1))), udp(www(up(a, 2), up(b, 2), draining(c, 4))),
			udp(www(up(a, 2), draining(b, 3), up(c, 4))),
		}},
		{"IPv6", []Service{udp(www6(up(a6, 1), up(b6, 1), up(c6, 2)))}},
		{"forty in IPv6, ports, some drain", []Service{many}},
		{"IPv6 over both underlays", []Service{udp(www6(up(a6, 1), up(b, 1), draining(c, 2)))}},
		{"IPv4 over both underlays", []Service{udp(www(up(a6, 1), up(b6, 2), up(c, 1)))}},
		{"TCP", []Service{www(up(a, 1), up(b, 2), draining(c, 1))}},
		{"TCP in IPv6", []Service{www6(up(a6, 1), up(b6, 2), draining(c6, 1))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := openInNamespace(t)
			attach(t)
			for _, s := range tt.history {
				apply(t, k, Table{s})
			}
			listed, err := k.List()
			if err != nil {
				t.Fatal(err)
			}
			model, err := NewMaglev(listed[0])
			if err != nil {
				t.Fatal(err)
			}
			wanted, err := NewMaglev(Canonical(tt.history[len(tt.history)-1]))
			if err != nil || wanted.Fingerprint() != model.Fingerprint() {
				t.Errorf("the fingerprint of what was wanted is another: %v", err)
			}
			sent := sendFlows(t, listed[0], 700)
			chosen := connections(t)
			wrong := 0
			for client := range sent {
				want, got := destinationOf(listed[0], model, client), chosen[client]
				if want != got {
					if wrong++; wrong <= 3 {
						t.Errorf("%s went to %s, the model says %s (%+v)", client, got, want, model.Lookup(client))
					}
				}
			}
			if wrong > 0 || len(chosen) > len(sent) {
				t.Errorf("%d of %d flows are wrong; the kernel knows %d", wrong, len(sent), len(chosen))
			}
			flows += len(sent)
		})
	}
	if flows < 10000 && !t.Failed() {
		t.Errorf("%d flows, want 10000", flows)
	}
	t.Logf("%d flows", flows)
}
