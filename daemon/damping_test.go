package daemon

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/control"
	"lb4d/health"
	"lb4d/tunnel"
)

// reset has the daemon forget, as the loop does.
func reset(t *testing.T, d *Daemon, vip string) (*control.ResetAnswer, error) {
	t.Helper()
	answer, err := d.reset(control.ResetRequest{VIP: vip})
	if err != nil {
		return nil, err
	}
	d.pass()
	return answer(), nil
}

// TestDamping: a VIP that fails a third time is held down, also by a new
// process, until the time is over or an operator resets it.
func TestDamping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, leastConfig)
		for range 3 {
			w.are(d.cfg, health.Down)
			d.pass()
			time.Sleep(time.Second)
			w.are(d.cfg, health.Up)
			d.pass()
		}
		expect(t, "routes", w.routed(), `
withdraw 198.51.100.1/32
announce 198.51.100.1/32
withdraw 198.51.100.1/32
announce 198.51.100.1/32
withdraw 198.51.100.1/32`)
		v := w.status.VIPs[0]
		if v.Failures != 3 || time.Until(v.HeldUntil) != 9*time.Second || !strings.HasPrefix(v.Reason, "held down until ") {
			t.Errorf("status %+v, want it held for 9s more after 3 failures", v)
		}

		_, next := newWorld(t, d.cfg)
		next.health, next.maintenance, next.table, next.host, next.routes, next.peers = d.health, d.maintenance, w, w, w, w
		var err error
		if next.memory, err = recall(strings.TrimSuffix(d.memory.path, "/lb4d.json")); err != nil {
			t.Fatal(err)
		}
		next.show = d.show
		next.pass()
		expect(t, "a new process", w.routed(), "")

		time.Sleep(9*time.Second - time.Nanosecond)
		next.pass()
		expect(t, "almost over", w.routed(), "")
		time.Sleep(time.Nanosecond)
		next.pass()
		expect(t, "over", w.routed(), "announce 198.51.100.1/32")

		w.are(d.cfg, health.Down)
		next.pass()
		w.are(d.cfg, health.Up)
		next.pass()
		expect(t, "a fourth time", w.routed(), "withdraw 198.51.100.1/32")
		a, err := reset(t, next, "198.51.100.1")
		if err != nil || a.Reset != 1 || !a.VIPs[0].Announced || a.VIPs[0].Failures != 0 {
			t.Errorf("reset: %+v, %v; want the VIP announced", a, err)
		}
		expect(t, "reset", w.routed(), "announce 198.51.100.1/32")
		if a, err := reset(t, next, ""); err != nil || a.Reset != 0 {
			t.Errorf("reset of what has not failed: %+v, %v", a, err)
		}
	})
}

// TestResetRefused: what is no VIP is told, and nothing is forgotten.
func TestResetRefused(t *testing.T) {
	_, d := announcing(t, leastConfig)
	for vip, status := range map[string]int{"www": http.StatusBadRequest, "198.51.100.99": http.StatusNotFound} {
		_, err := reset(t, d, vip)
		refusal, ok := err.(*control.Refusal) //nolint:errorlint // it is not wrapped
		if !ok || refusal.Status != status {
			t.Errorf("%s: got %v, want a refusal with %d", vip, err, status)
		}
	}
}

// TestReloadIsNoFailure: what a new configuration withdraws is not held against
// the VIP.
func TestReloadIsNoFailure(t *testing.T) {
	w, d := announcing(t, leastConfig)
	w.up(d, 1)
	for range 4 {
		for _, quorum := range []string{"quorum = 2\n", ""} {
			d.cfg, d.reloaded = parse(t, leastConfig+quorum), true
			d.pass()
			d.pass()
		}
	}
	if got := w.status.VIPs[0]; !got.Announced || got.Failures != 0 {
		t.Errorf("after four reloads each way: %+v", got)
	}
	if n := strings.Count(w.routed(), "withdraw"); n != 4 {
		t.Errorf("%d withdrawals, want 4", n)
	}
}

// robbed is a host where another program deletes each VIP right after it was
// added, as long as taken is set.
type robbed struct {
	*world
	taken bool
}

func (r *robbed) ApplyAddresses(ops []tunnel.AddressOp) (int, error) {
	n, err := r.world.ApplyAddresses(ops)
	if r.taken {
		r.addresses = nil
	}
	return n, err
}

// TestDampingOfTheKernel: a route does not come and go with each pass because
// another program takes the VIP away and lets it be in turns.
func TestDampingOfTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, leastConfig)
		host := &robbed{world: w}
		d.host = host
		const passes = 600
		for i := range passes {
			w.addresses, host.taken = nil, i%2 == 0
			d.pass()
			if i%2 == 0 && len(w.routesNow) > 0 {
				t.Fatal("announced without being local")
			}
			time.Sleep(time.Second)
		}
		if n := strings.Count(w.routed(), "announce "); n < 3 || n > 12 {
			t.Errorf("announced %d times in %d s, want some, and few", n, passes)
		}
		if v := w.status.VIPs[0]; !strings.HasPrefix(v.Reason, "held down until ") {
			t.Errorf("status %+v, want it held down", v)
		}

		host.taken = false
		time.Sleep(d.cfg.Damping.MaxHoldDown)
		d.pass()
		if len(w.routesNow) != 1 {
			t.Errorf("it stays withdrawn once it is left alone: %+v", w.status.VIPs[0])
		}
	})
}
