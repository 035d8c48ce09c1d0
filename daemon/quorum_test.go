package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
)

// up has the first n members answer, and the others not.
func (w *world) up(d *Daemon, n int) {
	for i, m := range d.cfg.Pools[0].Members {
		st := health.Status{State: health.Up, LastAnswer: "200 OK"}
		if i >= n {
			st = health.Status{State: health.Down, LastAnswer: "connection refused", FailingSince: time.Now()}
		}
		w.statuses[health.Target{Pool: "lb7", Member: m.Name, Addr: m.Address}] = st
	}
}

// routed is what of the journal concerns routes.
func (w *world) routed() string {
	var out []string
	for _, line := range strings.Split(w.since(), "\n") {
		if strings.HasPrefix(line, "announce ") || strings.HasPrefix(line, "withdraw ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestQuorumRestore: down to the quorum, back at quorum_restore; and a new
// process, which knows nothing of what was before, takes the quorum.
func TestQuorumRestore(t *testing.T) {
	text := strings.Replace(leastConfig, `"192.0.2.139", "192.0.2.140"`, `"192.0.2.139", "192.0.2.140", "192.0.2.141"`, 1) +
		"quorum_restore = 2\n"
	w, d := announcing(t, text)
	for _, step := range []struct {
		up   int
		want string
	}{
		{1, ""},
		{0, "withdraw 198.51.100.1/32"},
		{1, ""},
		{0, ""},
		{1, ""},
		{2, "announce 198.51.100.1/32"},
		{1, ""},
		{0, "withdraw 198.51.100.1/32"},
		{1, ""},
	} {
		w.up(d, step.up)
		d.pass()
		d.pass()
		expect(t, "routes", w.routed(), step.want)
	}
	s := w.status.Services[0]
	if s.Forwarding || s.Reason != "www has 1 of 3 members up, quorum_restore 2" || s.Quorum != 1 || s.QuorumRestore != 2 {
		t.Errorf("status %+v", s)
	}
	if got, want := w.status.VIPs[0].Reason, "www has 1 of 3 members up, quorum_restore 2"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}

	_, next := newWorld(t, d.cfg)
	next.health, next.maintenance, next.table, next.host, next.routes, next.peers = d.health, d.maintenance, w, w, w, w
	next.memory.path, next.show = d.memory.path, d.show
	next.pass()
	expect(t, "a new process", w.routed(), "announce 198.51.100.1/32")
}

// TestFlowsOfOnePool: a host that is a member of two pools has its flows told
// apart, so that those of a drained one are seen to end; and those of another
// tool's service are no member's.
func TestFlowsOfOnePool(t *testing.T) {
	service := func(vip string, active int) l4.Service {
		return l4.Service{
			Key: l4.Key{VIP: netip.MustParseAddr(vip), Port: 80, Protocol: l4.TCP},
			Destinations: []l4.Destination{
				{Addr: netip.MustParseAddr("192.0.2.139"), Port: 80, Weight: active, ActiveConns: active, InactiveConns: 1},
			},
		}
	}
	cfg := parse(t, leastConfig+`
[pool.api]
members = ["192.0.2.139"]
check = { tcp = true, port = 80 }
[service.api]
vips = ["198.51.100.2", "198.51.100.3"]
ports = ["80/tcp"]
pool = "api"
`)
	got := loads(l4.Table{
		service("198.51.100.1", 1), service("198.51.100.2", 20), service("198.51.100.3", 300), service("203.0.113.7", 4000),
	}, plan.Pools(cfg))
	for pool, want := range map[string]load{"lb7": {weight: 1, active: 1, inactive: 1}, "api": {weight: 300, active: 320, inactive: 2}} {
		if got := got[destination{pool, netip.MustParseAddr("192.0.2.139"), false}]; got != want {
			t.Errorf("pool %s: got %+v, want %+v", pool, got, want)
		}
	}
}
