package tunnel_test

import (
	"net/netip"
	"strings"
	"testing"

	"lb4d/health"
)

// stage is an observer that looks at one state of the underlay, with a check
// that waits for no second failure.
type stage struct {
	name   string
	change func()
	adjust func(*health.Check)
	mtu    health.MTUState
	state  health.State
	// words for IPv4 and IPv6.
	words4, words6 string
}

func (w *world) play(stages []stage) {
	for _, s := range stages {
		w.t.Run(s.name, func(t *testing.T) {
			if s.change != nil {
				s.change()
			}
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			o := w.observe(func(c *health.Check) {
				c.Fall = 1
				if s.adjust != nil {
					s.adjust(c)
				}
			})
			defer o.Close()
			for member := range w.marks {
				want := s.words4
				if member.Is6() {
					want = s.words6
				}
				got := o.awaitMTU(member, s.mtu)
				if got.MTUAnswer != want {
					t.Errorf("of %s: %q, want %q", member, got.MTUAnswer, want)
				}
				o.awaitState(member, s.state)
			}
			o.Close()
			warned := strings.Count(o.log.String(), "lacks room")
			if s.mtu == health.MTUFailed && warned != len(w.marks) || s.mtu != health.MTUFailed && warned != 0 {
				t.Errorf("%d warnings, want one for each member that fails:\n%s", warned, o.log.String())
			}
		})
	}
}

const (
	fits1500 = "full-size packets (1500 bytes) get through"
	tight4   = "full-size packets (1500 bytes) do not get through the tunnel, which carries 1480; raise the underlay's MTU to 1520 or lower advmss on the LB7 to 1440"
	tight6   = "full-size packets (1500 bytes) do not get through the tunnel, which carries 1460; raise the underlay's MTU to 1540 or lower advmss on the LB7 to 1400"
	lost4    = "full-size packets (1500 bytes) get lost in the tunnel; does the underlay carry 1520 bytes all the way? else lower advmss on the LB7"
	lost6    = "full-size packets (1500 bytes) get lost in the tunnel; does the underlay carry 1540 bytes all the way? else lower advmss on the LB7"
)

func byTCP(c *health.Check) { c.HTTP, c.ExpectStatus, c.DrainStatus = "", nil, nil }

// The whole way, from an underlay that is too small, over each of the remedies.
func TestProbeOfFullSizePackets(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1500)
	ports := []string{"lb4", "lb7-1", "lb7-2"}
	w.play([]stage{
		{
			name: "underlay 1500", mtu: health.MTUFailed, state: health.Up,
			words4: tight4, words6: tight6,
		},
		{
			name: "underlay 1500, by TCP", adjust: byTCP, mtu: health.MTUFailed, state: health.Up,
			words4: tight4, words6: tight6,
		},
		{
			name: "underlay 1500, required", adjust: func(c *health.Check) { c.MTURequired = true },
			mtu: health.MTUFailed, state: health.Down,
			words4: tight4, words6: tight6,
		},
		{
			name: "advmss lowered",
			change: func() {
				for _, l := range w.lb7s {
					for i, r := range l.subnets() {
						r.AdvMSS = []int{1440, 1400}[i]
						must(t, l.handle.RouteReplace(r))
					}
				}
			},
			mtu: health.MTUOK, state: health.Up,
			words4: "full-size packets (1480 bytes) get through", words6: "full-size packets (1460 bytes) get through",
		},
		{
			name: "underlay 1540",
			change: func() {
				w.setMTU(1540, ports...)
				w.here.setMTU("uplink", 1540)
				for _, l := range w.lb7s {
					l.setMTU("eth0", 1540)
					for _, r := range l.subnets() {
						must(t, l.handle.RouteReplace(r))
					}
				}
			},
			mtu: health.MTUOK, state: health.Up, words4: fits1500, words6: fits1500,
		},
		{
			name: "underlay 1540, by TCP", adjust: byTCP,
			mtu: health.MTUOK, state: health.Up, words4: fits1500, words6: fits1500,
		},
		{
			// A path MTU of 1480 was learnt for the VIP at the
			// beginning, so TCP cannot tell.
			name:   "an LB7 that answers no UDP, and a path MTU learnt before",
			change: w.deafen,
			mtu:    health.MTUUnknown, state: health.Up,
			words4: "full-size packets: no telling, as the LB7 answers no UDP",
			words6: "full-size packets: no telling, as the LB7 answers no UDP",
		},
	})
}

// Where nothing was learnt before, a request tells what a datagram cannot, and an
// underlay that says nothing is found out.
func TestProbeOfFullSizePacketsInSilence(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1540)
	ports := []string{"lb4", "lb7-1", "lb7-2"}
	w.play([]stage{
		{
			name: "a switch that drops", change: func() { w.setMTU(1500, ports...) },
			mtu: health.MTUFailed, state: health.Up, words4: lost4, words6: lost6,
		},
		{
			name: "a switch that drops, by TCP", adjust: byTCP,
			mtu: health.MTUFailed, state: health.Up, words4: lost4, words6: lost6,
		},
		{
			name: "a switch that drops, and no UDP", change: w.deafen,
			mtu: health.MTUFailed, state: health.Up, words4: lost4, words6: lost6,
		},
		{
			name: "no UDP", change: func() { w.setMTU(1540, ports...) },
			mtu: health.MTUOK, state: health.Up, words4: fits1500, words6: fits1500,
		},
		{
			name: "no UDP, by TCP", adjust: byTCP,
			mtu: health.MTUUnknown, state: health.Up,
			words4: "full-size packets: no telling, as the LB7 answers no UDP",
			words6: "full-size packets: no telling, as the LB7 answers no UDP",
		},
	})
}

// A warning goes as soon as there is room, without anybody's help.
func TestProbeOfFullSizePacketsRecovers(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	w := newWorld(t, 1500)
	o := w.observe(func(c *health.Check) { c.MTURequired = true })
	members := w.lb7s[0].members
	each := func(f func(netip.Addr)) {
		for _, member := range members {
			f(member)
		}
	}
	each(func(m netip.Addr) { o.awaitState(m, health.Down) })
	w.setMTU(1600, "lb4", "lb7-1", "lb7-2")
	w.here.setMTU("uplink", 1600)
	for _, l := range w.lb7s {
		l.setMTU("eth0", 1600)
	}
	each(func(m netip.Addr) { o.awaitState(m, health.Up) })
	each(func(m netip.Addr) { o.awaitMTU(m, health.MTUOK) })
}
