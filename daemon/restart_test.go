package daemon

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/health"
	"lb4d/plan"
)

// restarts is another daemon in the same world, after the one before has gone
// without a word.
func (w *world) restarts(t *testing.T, before *Daemon, cfg *config.Config) *Daemon {
	t.Helper()
	_, d := newWorld(t, cfg)
	d.log, d.opts = before.log, before.opts
	d.health, d.maintenance, d.table, d.host, d.routes, d.peers, d.show = before.health, before.maintenance, w, w, w, w, before.show
	var err error
	if d.memory, err = recall(filepath.Dir(before.memory.path)); err != nil {
		t.Fatal(err)
	}
	w.routesNow, w.sessions = nil, 0
	w.log.Reset()
	d.inherit()
	return d
}

// TestRestart: what a start says of the routes that the process before has left,
// and when the sessions come up.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(w *world, d *Daemon) // what happens before the start
		config func(string) string
		log    string
		kept   bool
		// sessions come up although no check has answered.
		sessions bool
	}{
		{
			name: "forwarding went on",
			log:  `msg="routes kept through the restart" families=ipv4 reason="the kernel still forwards 1 of the 1 VIPs that were announced"`,
			kept: true,
		},
		{
			name:   "the table is gone",
			before: func(w *world, _ *Daemon) { w.tableNow = nil },
			log:    `msg="no routes kept through a restart" reason="198.51.100.1:80/tcp is not in the kernel's table"`, sessions: true,
		},
		{
			name:   "the address is gone",
			before: func(w *world, _ *Daemon) { w.addresses = nil },
			log:    `msg="no routes kept through a restart" reason="198.51.100.1 is not a local address"`, sessions: true,
		},
		{
			name: "the host was booted",
			before: func(_ *world, d *Daemon) {
				d.memory.boot = "another"
				if err := d.memory.save(nil); err != nil {
					panic(err)
				}
			},
			log: `msg="no routes kept through a restart" reason="the host has been booted since"`, sessions: true,
		},
		{
			name:   "the kernel cannot be read",
			before: func(w *world, _ *Daemon) { w.failList = errors.New("no IPVS") },
			log:    `msg="no routes kept through a restart" reason="the kernel cannot be read: no IPVS"`, sessions: true,
		},
		{
			name: "off",
			config: func(c string) string {
				return strings.Replace(c, "as = 65000", "as = 65000\ngraceful_restart = \"0s\"", 1)
			},
			log: `msg="no routes kept through a restart" reason="no peer is asked to, graceful_restart is 0s"`, sessions: true,
		},
		{
			name: "it was withdrawn before",
			before: func(w *world, d *Daemon) {
				w.are(d.cfg, health.Down)
				d.pass()
			},
			log: `msg="no routes kept through a restart" reason="no routes were left announced"`,
		},
		{
			name: "a stop in order",
			before: func(_ *world, d *Daemon) {
				d.stop()
				d.pass()
			},
			log: `msg="no routes kept through a restart" reason="no routes were left announced"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := parse(t, leastConfig)
				w, d := newWorld(t, cfg)
				w.are(cfg, health.Up)
				d.pass()
				if tt.before != nil {
					tt.before(w, d)
				}
				if tt.config != nil {
					cfg = parse(t, tt.config(leastConfig))
				}
				clear(w.statuses)
				d = w.restarts(t, d, cfg)
				if log := w.log.String(); !strings.Contains(log, tt.log) {
					t.Errorf("the log has\n%swant %s", log, tt.log)
				}
				if got := preserved(d.kept) != 0; got != tt.kept {
					t.Errorf("kept is %v, want %v", got, tt.kept)
				}
				d.pass()
				if got := w.sessions > 0; got != tt.sessions {
					t.Errorf("sessions before any check has answered: %v, want %v", got, tt.sessions)
				}
				if len(w.routesNow) > 0 {
					t.Errorf("announced before any check has answered: %v", w.routesNow)
				}
				w.failList = nil
				w.are(cfg, health.Up)
				d.pass()
				if len(w.routesNow) != 1 || w.sessions == 0 {
					t.Errorf("with all up, announced %v, peers set %d times", w.routesNow, w.sessions)
				}
			})
		})
	}
}

// TestRestartDeferral: checks that do not answer hold kept routes up for so long
// and no longer; then what the kernel forwards is announced as it is.
func TestRestartDeferral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, leastConfig)
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		d.pass()
		w.since()
		clear(w.statuses)
		d = w.restarts(t, d, cfg)
		time.Sleep(plan.Deferral(cfg) - time.Second)
		d.pass()
		expect(t, "before it is over", w.since(), "")
		if w.sessions > 0 {
			t.Error("sessions before the routes stand")
		}
		time.Sleep(time.Second)
		d.pass()
		expect(t, "after it", w.since(), "announce 198.51.100.1/32")
		if w.sessions == 0 {
			t.Error("no sessions")
		}
		if got, want := w.status.VIPs[0].Reason, "www goes on while 2 members of 2 have not answered yet"; got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
		d.pass()
		expect(t, "after that", w.since(), "")

		w.are(cfg, health.Down)
		d.pass()
		if got := w.since(); !strings.Contains(got, "withdraw 198.51.100.1/32") {
			t.Errorf("with both down, done:\n%s", got)
		}
	})
}

// TestRestartTwice: a process that dies before its first decision leaves what it
// has inherited.
func TestRestartTwice(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	clear(w.statuses)
	d = w.restarts(t, d, cfg)
	d.memory.unsaved = true
	d.pass()
	d = w.restarts(t, d, cfg)
	if !d.kept.IPv4 {
		t.Errorf("not kept: %s", d.kept.Reason)
	}
}

// TestHandOver: the loop ends at once and withdraws nothing; a stop that has
// begun goes on.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, leastConfig)
		w, d := newWorld(t, cfg)
		handOver := make(chan struct{})
		d.opts.HandOver = handOver
		w.are(cfg, health.Up)
		w.peersNow = []bgp.PeerStatus{
			{Name: "rr1", State: "established", GracefulRestart: time.Minute},
			{Name: "rr2", State: "established"},
			{Name: "rr3", State: "connect"},
		}
		ended := make(chan error)
		go func() { ended <- d.loop(t.Context()) }()
		synctest.Wait()
		handOver <- struct{}{}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if len(w.routesNow) != 1 || !d.handedOver || len(w.tableNow) != 1 {
			t.Errorf("after the hand-over: handed over %v, announced %v, table %v", d.handedOver, w.routesNow, w.tableNow)
		}
		want := `msg="handing over; some peers do not keep the routes meanwhile" announced=1 peers_that_keep_routes=1 peers_that_do_not=rr2`
		if log := w.log.String(); !strings.Contains(log, want) {
			t.Errorf("the log has\n%swant %s", log, want)
		}
		if slices.ContainsFunc(w.notified, func(s string) bool { return strings.Contains(s, "STOPPING") }) {
			t.Errorf("notified %q, and the service manager is to start it again", w.notified)
		}
	})
}
