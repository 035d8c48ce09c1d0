package load

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHold keeps downloads in flight that are not replaced when they break,
// and tells who carries them.
func TestHold(t *testing.T) {
	signed := func(name string) (netip.AddrPort, chan struct{}) {
		breakAll := make(chan struct{})
		return misbehave(t, func(c *net.TCPConn) {
			c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-LB7: " + name + "\r\n\r\nabc"))
			<-breakAll
			c.SetLinger(0)
		}), breakAll
	}
	one, breakOne := signed("LB7-1")
	two, breakTwo := signed("LB7-2")
	defer close(breakTwo)
	g, err := New(Options{Targets: []netip.AddrPort{one, two}, Kinds: []Kind{Hold(20, 100*time.Millisecond)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan Result, 1)
	go func() { results <- g.Run(ctx) }()
	eventually := func(what string, cond func(KindResult) bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if cond(g.Snapshot(0).Kind("hold")) {
				return
			}
		}
		t.Fatalf("%s: not within 20 s: %+v", what, g.Snapshot(0).Kind("hold"))
	}
	eventually("all answered", func(k KindResult) bool { return k.Carried["LB7-1"] == 10 && k.Carried["LB7-2"] == 10 })
	close(breakOne)
	eventually("half of them broken", func(k KindResult) bool { return k.Carried["LB7-1"] == 0 && k.Broken() == 10 })
	time.Sleep(3 * afterFault)
	cancel()
	k := (<-results).Kind("hold")
	if k.Started != 20 || k.Broken() != 10 || k.Outcomes[Unfinished] != 10 || len(k.Carried) != 0 {
		t.Errorf("at the end: %+v; want 20 started, 10 broken, 10 unfinished and none carried", k)
	}
}

// TestSources has as many requests come from as many sources, and each source
// meet each target in the end.
func TestSources(t *testing.T) {
	var o Options
	for i := range 200 {
		o.Sources = append(o.Sources, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}))
	}
	for i := range 8 {
		o.Targets = append(o.Targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 80))
	}
	o.Kinds = []Kind{Quick(1)}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer g.poller.close()
	e := newEngine(g)
	first := make(map[netip.Addr]bool)
	met := make(map[[2]netip.Addr]bool)
	for i := range 200 * 8 {
		target, source := e.next()
		if i < 200 {
			first[source] = true
		}
		met[[2]netip.Addr{target.Addr(), source}] = true
	}
	if len(first) != 200 || len(met) != 200*8 {
		t.Errorf("the first 200 requests come from %d sources, and 1600 requests make %d pairs", len(first), len(met))
	}
}

// TestProbe sees that the kernel is told to send keep-alives.
func TestProbe(t *testing.T) {
	at := misbehave(t, func(c *net.TCPConn) { time.Sleep(5 * time.Second) })
	k := Hold(1, time.Millisecond)
	k.Probe = 2 * time.Second
	g, err := New(Options{Targets: []netip.AddrPort{at}, Kinds: []Kind{k}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.poller.close()
	e := newEngine(g)
	e.launch(e.lanes[0], time.Now())
	for fd := range e.flights {
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 2, unix.TCP_KEEPINTVL: 2, unix.TCP_KEEPCNT: maxProbes} {
			if got, err := unix.GetsockoptInt(int(fd), unix.SOL_TCP, option); err != nil || got != want {
				t.Errorf("option %d of TCP is %d, %v; want %d", option, got, err, want)
			}
		}
		if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || got != 1 {
			t.Errorf("keep-alives are %d, %v; want 1", got, err)
		}
		unix.Close(int(fd))
	}
	if len(e.flights) != 1 {
		t.Errorf("%d requests in flight, want 1", len(e.flights))
	}
}
