package l4

import (
	"maps"
	"net/netip"
	"testing"
)

// TestKernelSlots has the kernel schedule flows, and compares a host on which a
// member began to drain with one that was started while it did. Both must send
// every flow to the same destination; a host that adds the draining member at
// weight 0 does not, which is why Diff does not do so.
func TestKernelSlots(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	full := Table{datagrams(up(a, 1), up(b, 1), up(c, 1))}
	drained := Table{datagrams(up(a, 1), draining(b, 1), up(c, 1))}
	naive := Table{datagrams(up(a, 1), draining(b, 0), up(c, 1))}

	openInNamespace(t) // skips the whole test, where it does
	schedule := func(name string, tables ...Table) map[netip.AddrPort]netip.AddrPort {
		var chosen map[netip.AddrPort]netip.AddrPort
		t.Run(name, func(t *testing.T) {
			k := openInNamespace(t)
			attach(t)
			for _, table := range tables {
				apply(t, k, table)
			}
			sendFlows(t, full[0], 300)
			chosen = connections(t)
		})
		return chosen
	}
	before := schedule("full", full)
	ran := schedule("drained", full, drained)
	started := schedule("started drained", drained)
	if !maps.Equal(ran, started) {
		t.Errorf("a restart while draining moves flows:\nran through %v\nstarted %v", ran, started)
	}
	if !maps.Equal(schedule("drained and back", full, drained, full), before) {
		t.Error("a drain and its end moved flows for good")
	}
	moved, onB := 0, 0
	for client, dest := range before {
		if dest == draining(b, 1).AddrPort() {
			onB++
		} else if ran[client] != dest {
			moved++
		}
	}
	if moved != 0 || onB < 60 || onB > 140 {
		t.Errorf("a drain moved %d flows of others; %d of 300 were the drained destination's", moved, onB)
	}
	if maps.Equal(ran, schedule("added at weight 0", naive)) {
		t.Error("a destination added at weight 0 does as well, so this test shows nothing")
	}
}

// datagrams is a UDP service, whose flows need no handshake.
func datagrams(destinations ...Destination) Service {
	return with(www(destinations...), func(s *Service) { s.Protocol = UDP })
}
