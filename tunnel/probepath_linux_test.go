package tunnel_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/health"
	"lb4d/tunnel"
)

// patience bounds how long a test waits for what should come soon.
const patience = 60 * time.Second

// observer is a health.Observer of a world, with its log.
type observer struct {
	*health.Observer
	world   *world
	changed chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes the log.
func (o *observer) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log.Write(b)
}

// probes are those of all members.
func (w *world) probes() []tunnel.Probe {
	var probes []tunnel.Probe
	for member := range w.marks {
		vip := vip4
		if member.Is6() {
			vip = vip6
		}
		probes = append(probes, tunnel.Probe{Member: member, VIP: netip.MustParseAddr(vip)})
	}
	return probes
}

// path is the probe path, applied.
func (w *world) path() (tunnel.Path, []tunnel.SysctlChange) {
	w.t.Helper()
	path, err := w.host.ProbePath(w.probes())
	must(w.t, err)
	changes, err := tunnel.ApplySysctls(path.Sysctls)
	must(w.t, err)
	return path, changes
}

// observe probes every member through the tunnel, until the test ends or stop is
// called. adjust changes the check.
func (w *world) observe(adjust func(*health.Check)) *observer {
	w.t.Helper()
	o := &observer{world: w, changed: make(chan struct{}, 1)}
	o.Observer = health.New(slog.New(slog.NewTextHandler(o, nil)), func() {
		select {
		case o.changed <- struct{}{}:
		default:
		}
	})
	w.t.Cleanup(o.Close)
	path, _ := w.path()
	targets := map[health.Target]health.Check{}
	for probe, way := range path.Ways {
		check := health.Check{
			HTTP: "/healthcheck", Port: 80, ExpectStatus: []int{200}, DrainStatus: []int{503},
			Interval: 500 * time.Millisecond, Timeout: 400 * time.Millisecond, Rise: 1, Fall: 2,
			Through: &health.Through{VIP: probe.VIP, Source: way.Source, Mark: w.marks[probe.Member]},
		}
		if adjust != nil {
			adjust(&check)
		}
		targets[w.target(probe.Member)] = check
	}
	o.Set(targets)
	return o
}

func (w *world) target(member netip.Addr) health.Target {
	for _, l := range w.lb7s {
		for _, m := range l.members {
			if m == member {
				return health.Target{Pool: "lb7", Member: l.name, Addr: m}
			}
		}
	}
	w.t.Fatalf("%s is no member", member)
	return health.Target{}
}

// await waits until the status of a member satisfies.
func (o *observer) await(member netip.Addr, what string, satisfies func(health.Status) bool) health.Status {
	o.world.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s := o.Statuses()[o.world.target(member)]
		if satisfies(s) {
			return s
		}
		select {
		case <-o.changed:
		case <-tick.C:
		case <-deadline:
			o.world.t.Fatalf("%s is not %s: %+v", member, what, s)
		}
	}
}

func (o *observer) awaitState(member netip.Addr, state health.State) health.Status {
	o.world.t.Helper()
	return o.await(member, state.String(), func(s health.Status) bool { return s.State == state })
}

func (o *observer) awaitMTU(member netip.Addr, state health.MTUState) health.Status {
	o.world.t.Helper()
	return o.await(member, "with MTU "+state.String(), func(s health.Status) bool { return s.MTU == state && s.MTUAnswer != "" })
}

// A probe meets the member that it is meant for, and fails where a user's packet
// would be lost, although the member's own address answers.
func TestProbeThroughTunnel(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1500)
	path, changes := w.path()
	if got, want := fmt.Sprint(changes), "[net.ipv4.conf.uplink.accept_local = 1 (was 0)]"; got != want {
		t.Errorf("changed %s, want %s", got, want)
	}
	for probe, way := range path.Ways {
		want := tunnel.Way{Device: "uplink", MTU: 1500, Source: netip.MustParseAddr(lb4v4)}
		if probe.VIP.Is6() {
			want.Source = netip.MustParseAddr(lb4v6)
		}
		if way != want {
			t.Errorf("the way to %s is %+v, want %+v", probe.Member, way, want)
		}
	}

	o := w.observe(nil)
	healthy := func(l *lb7) {
		t.Helper()
		for _, member := range l.members {
			s := o.awaitState(member, health.Up)
			if !strings.HasPrefix(s.LastAnswer, "200 "+l.name+" in ") {
				t.Errorf("the probe of %s was answered %q, want %s", l.name, s.LastAnswer, l.name)
			}
		}
	}
	for _, l := range w.lb7s {
		healthy(l)
	}

	first, second := w.lb7s[0], w.lb7s[1]
	const (
		silent = "timeout after 400ms through the tunnel: no connection"
		lacks  = "; the member itself answers: has it the tunnel device, the VIP and a route back?"
		server = "connection refused through the tunnel; the member itself answers: has it the tunnel device, and a server on the VIP?"
	)
	for _, tt := range []struct {
		name         string
		fail, repair func()
		want4, want6 string
	}{
		{
			name: "no tunnel device",
			fail: func() { first.down("tunl0"); first.down("ip6tnl0") },
			repair: func() {
				first.up("tunl0")
				first.up("ip6tnl0")
			},
			// IPv4 in IPv4 that nobody takes is answered, for IPv6 in
			// IPv6 that depends on the kernel.
			want4: server,
			want6: silent + lacks,
		},
		{
			name:   "no VIP",
			fail:   func() { first.remove("vips", vip4+"/32"); first.remove("vips", vip6+"/128") },
			repair: func() { first.add("vips", vip4+"/32"); first.add("vips", vip6+"/128") },
			want4:  silent + lacks,
			want6:  silent + lacks,
		},
		{
			name: "no route back",
			fail: func() {
				for _, r := range first.subnets() {
					must(t, first.handle.RouteDel(r))
				}
			},
			repair: func() {
				for _, r := range first.subnets() {
					must(t, first.handle.RouteAdd(r))
				}
			},
			want4: silent + "; the member itself does not answer either",
			want6: silent + "; the member itself does not answer either",
		},
		{
			name:   "no server",
			fail:   first.stop,
			repair: first.serve,
			want4:  "connection refused through the tunnel; refused by the member itself, too",
			want6:  "connection refused through the tunnel; refused by the member itself, too",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.fail()
			for _, member := range first.members {
				s := o.awaitState(member, health.Down)
				want := tt.want4
				if member.Is6() {
					want = tt.want6
				}
				if s.LastAnswer != want {
					t.Errorf("%s answers %q, want %q", member, s.LastAnswer, want)
				}
			}
			healthy(second)
			tt.repair()
			healthy(first)
		})
	}
	for _, member := range second.members {
		if s := o.Statuses()[w.target(member)]; s.FailedTotal != 0 {
			t.Errorf("%s failed %d times, with nothing wrong", member, s.FailedTotal)
		}
	}
	if n := second.unreset.Load(); n != 0 {
		t.Errorf("%d probes did not end with a reset", n)
	}
}

// Without the sysctls of the path an IPv4 probe fails, for IPv6 there are none.
func TestProbePathMatters(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1500)
	o := w.observe(nil)
	four, six := w.lb7s[0].members[0], w.lb7s[0].members[1]
	o.awaitState(four, health.Up)
	o.awaitState(six, health.Up)

	for _, tt := range []struct {
		key, value string
		want       string
	}{
		{"net.ipv4.conf.uplink.accept_local", "0", "[net.ipv4.conf.uplink.accept_local = 1 (was 0)]"},
		{"net.ipv4.conf.all.rp_filter", "1", "[net.ipv4.conf.uplink.rp_filter = 2 (was 0)]"},
		{"net.ipv4.conf.uplink.rp_filter", "1", "[net.ipv4.conf.uplink.rp_filter = 2 (was 1)]"},
	} {
		t.Run(tt.key+"="+tt.value, func(t *testing.T) {
			before := w.here.get(tt.key)
			w.here.set(tt.key, tt.value)
			o.awaitState(four, health.Down)
			path, changes := w.path()
			if got := fmt.Sprint(changes); got != tt.want {
				t.Errorf("changed %s, want %s", got, tt.want)
			}
			if len(path.Ways) != 4 {
				t.Errorf("%d ways, want 4", len(path.Ways))
			}
			o.awaitState(four, health.Up)

			// What was ours goes back to what was found.
			back, err := tunnel.RestoreSysctls(changes)
			if err != nil || len(back) != 1 || back[0].Value != changes[0].Was {
				t.Errorf("set back %v (%v), want %v undone", back, err, changes)
			}
			o.awaitState(four, health.Down)
			w.here.set(tt.key, before)
			o.awaitState(four, health.Up)
		})
	}
	if s := o.Statuses()[w.target(six)]; s.FailedTotal != 0 {
		t.Errorf("IPv6 failed %d times, want never: %s", s.FailedTotal, s.LastAnswer)
	}
}

// A probe that is not possible says why, and does not take the others with it.
func TestProbePathFaults(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1500)
	addr := netip.MustParseAddr
	good := tunnel.Probe{Member: addr("192.0.2.139"), VIP: addr(vip4)}
	mixed := tunnel.Probe{Member: addr("192.0.2.139"), VIP: addr(vip6)}
	bad := []tunnel.Probe{
		{Member: addr("203.0.113.7"), VIP: addr(vip4)},
		{Member: addr("203.0.113.7"), VIP: addr("198.51.100.2")},
		{Member: addr(lb4v4), VIP: addr(vip4)},
	}
	path, err := w.host.ProbePath(append(bad, good, mixed))
	want := map[tunnel.Probe]tunnel.Way{
		good:  {Device: "uplink", MTU: 1500, Source: addr(lb4v4)},
		mixed: {Device: "uplink", MTU: 1500, Source: addr(lb4v6)},
	}
	if diff := cmp.Diff(want, path.Ways, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("ways (-want +got):\n%s", diff)
	}
	const lines = `looking for the route to member 203.0.113.7: network is unreachable
looking for the route to member 192.0.2.1: it is an address of this host`
	if err == nil || err.Error() != lines {
		t.Errorf("error\n%v\nwant\n%s", err, lines)
	}

	w.here.remove("uplink", lb4v6+"/64")
	path, err = w.host.ProbePath([]tunnel.Probe{good, mixed})
	const none = `choosing an address to probe 2001:db8:1::1 through member 192.0.2.139 from: device uplink has no IPv6 address but VIPs; give it one, or set via = "direct"`
	if err == nil || err.Error() != none {
		t.Errorf("error\n%v\nwant\n%s", err, none)
	}
	if len(path.Ways) != 1 {
		t.Errorf("%d ways are left, want 1", len(path.Ways))
	}
}
