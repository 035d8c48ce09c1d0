package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// scale is how many VIPs the figures are about.
const scale = 10_000

// bound is how long scale routes may take to be announced, or to be withdrawn.
const bound = 2 * time.Second

// generous is what a machine that others use is given on top of that.
const generous = 5

// Many routes come and go fast, at each of two peers, while a third one opens
// its session and then reads nothing.
func TestScale(t *testing.T) {
	first := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	second := startRemote(t, "127.0.0.3", remoteOptions{as: 65010})
	l, err := net.Listen("tcp", "127.0.0.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go deaf(l)
	s, _ := startSpeaker(t, Options{})
	rr1, tor1 := first.peer("rr1"), second.peer("tor1")
	rr1.HoldTime, tor1.HoldTime = 30*time.Second, 30*time.Second
	rr1.Attributes = Attributes{Communities: []uint32{1, 2}, MED: new(uint32(50))}
	tor1.Attributes = Attributes{Prepend: new(2)}
	silent := Peer{Name: "silent", Address: netip.MustParseAddr("127.0.0.4"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, HoldTime: 30 * time.Second}
	s.establish(t, rr1, tor1, silent)
	awaitState(t, s, "tor1", stateEstablished)
	awaitState(t, s, "silent", stateEstablished)

	timed := func(what string, do func() error, done func() bool) {
		t.Helper()
		first.history()
		second.history()
		begun := time.Now()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		set := time.Since(begun)
		eventually(t, func() (bool, string) { return done(), what })
		took := time.Since(begun)
		t.Logf("%s: set within %s, at the peers within %s", what, set.Round(time.Millisecond), took.Round(time.Millisecond))
		if took > generous*bound {
			t.Errorf("%s took %s", what, took)
		}
	}
	have := func(n int) func() bool {
		return func() bool { return first.count(t) == n && second.count(t) == n }
	}
	// told counts the changes that a peer has heard of since the last time.
	told := func(n int, peers ...*remote) func() bool {
		heard := map[*remote]int{}
		return func() bool {
			all := true
			for _, r := range peers {
				heard[r] += len(r.history())
				all = all && heard[r] >= n
			}
			return all
		}
	}
	routes := many(scale)
	timed("announced", func() error { return s.Set(routes) }, have(scale))
	timed("changed", func() error {
		for i := range routes {
			routes[i].MED = new(uint32(60))
		}
		return s.Set(routes)
	}, told(scale, first, second))
	timed("sent to one peer with another community", func() error {
		rr1.Attributes.Communities = []uint32{3}
		return s.SetPeers([]Peer{rr1, tor1, silent})
	}, told(scale, first))
	timed("withdrawn", func() error { return s.Set(nil) }, have(0))
	timed("announced again", func() error { return s.Set(routes) }, have(scale))
	for _, name := range []string{"rr1", "tor1"} {
		if p := status(t, s, name); p.State != stateEstablished {
			t.Errorf("%+v", p)
		}
	}
}

// The same with each router, and what the routes cost in memory: the router is
// another process.
func TestInteropScale(t *testing.T) {
	for _, test := range routers {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t, sessions{as: 65010}).(interface {
				counts(t *testing.T) (v4, v6 int)
			})
			s, _ := startSpeaker(t, Options{})
			p := overIPv4(65010)
			p.HoldTime = 30 * time.Second
			s.establish(t, p)
			// FRR takes its time for the first routes after its start.
			reached := func(what string, n int) {
				t.Helper()
				eventually(t, func() (bool, string) {
					v4, v6 := r.counts(t)
					return v4 == n && v6 == n, fmt.Sprintf("%s: %d IPv4 and %d IPv6 routes", what, v4, v6)
				})
			}
			for _, routes := range [][]Route{prefixes("198.51.100.1/32", "2001:db8:2::1/128"), nil} {
				if err := s.Set(routes); err != nil {
					t.Fatal(err)
				}
				reached("at first", len(routes)/2)
			}
			routes := append(many(scale/2), many6(scale/2)...)
			before := heap()
			for _, step := range []struct {
				what   string
				routes []Route
				want   int
			}{
				{"announced", routes, scale / 2}, {"withdrawn", nil, 0},
				{"announced again", routes, scale / 2}, {"withdrawn again", nil, 0},
			} {
				begun := time.Now()
				if err := s.Set(step.routes); err != nil {
					t.Fatal(err)
				}
				reached(step.what, step.want)
				took := time.Since(begun)
				t.Logf("%s at the router within %s, heap %+d kB", step.what, took.Round(time.Millisecond), (heap()-before)>>10)
				if took > generous*bound {
					t.Errorf("%s took %s", step.what, took)
				}
			}
		})
	}
}

// many6 makes n host routes of IPv6.
func many6(n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		a := netip.MustParseAddr("2001:db8:1::").As16()
		a[14], a[15] = byte(i>>8), byte(i)
		routes[i].Prefix = netip.PrefixFrom(netip.AddrFrom16(a), 128)
	}
	return routes
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
