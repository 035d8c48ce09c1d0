package l4

import (
	"net/netip"
	"testing"
	"time"
)

// TestKernelReceived: what is sent to a VIP is seen in its counters, over both of
// its services and of nobody else's, no later than ReceivedAge and a margin.
func TestKernelReceived(t *testing.T) {
	k := openInNamespace(t)
	attach(t)
	tcp, udp := www(up("192.0.2.139", 1)), www(up("192.0.2.139", 1))
	udp.Protocol = UDP
	apply(t, k, Table{tcp, udp})
	all := func(netip.Addr) bool { return true }

	received := func() Received {
		t.Helper()
		got, err := k.Received(all)
		if err != nil {
			t.Fatal(err)
		}
		return got[tcp.VIP]
	}
	if got := received(); got != (Received{}) {
		t.Fatalf("before the first packet: %+v", got)
	}
	sendFlows(t, tcp, 10)
	sendFlows(t, udp, 20)
	begin := time.Now()
	for received().Flows != 30 {
		if time.Since(begin) > 4*ReceivedAge {
			t.Fatalf("%v after 30 flows: %+v", time.Since(begin), received())
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("30 flows seen after %v", time.Since(begin).Round(10*time.Millisecond))
	if got := received(); got.Packets < 30 || got.Bytes < 30*28 {
		t.Errorf("30 flows have %+v", got)
	}
	// The counters are added up at least that often: each of five packets sent
	// one after the other's appearance takes no longer.
	for range 3 {
		before := received().Packets
		begin := time.Now()
		sendFlows(t, udp, 1)
		for received().Packets == before {
			if time.Since(begin) > 4*ReceivedAge {
				t.Fatal("a packet was not seen")
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("a packet was seen after %v", time.Since(begin).Round(10*time.Millisecond))
		if took := time.Since(begin); took > ReceivedAge+time.Second {
			t.Errorf("a packet was seen after %v, want no more than %v and what a busy machine adds", took, ReceivedAge)
		}
	}
	table, err := k.List()
	if err != nil || table[0].Received.Add(table[1].Received) != received() {
		t.Errorf("listed with %+v, %v; want %+v together", table, err, received())
	}
	// Without the estimation nothing is added up (tunnel.CounterSysctls).
	sysctl(t, "net/ipv4/vs/run_estimation", "0")
	before := received()
	sendFlows(t, udp, 5)
	time.Sleep(ReceivedAge + ReceivedAge/2)
	if got := received(); got != before {
		t.Errorf("with run_estimation 0: %+v, was %+v; then the sysctl need not be set", got, before)
	}
	none, err := k.Received(func(netip.Addr) bool { return false })
	if err != nil || len(none) != 0 {
		t.Errorf("of nobody's VIPs: %v, %v", none, err)
	}
}
