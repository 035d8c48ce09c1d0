package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/lab/load"
)

// packets are all that IPVS of a host has forwarded until now. Unlike the
// counters of the services, which are two seconds old at worst, these are those
// of the processors themselves.
func (b *bed) packets(host string) uint64 {
	b.t.Helper()
	p, err := b.place(host)
	if err != nil {
		b.t.Fatal(err)
	}
	var text []byte
	// Not /proc/net, which is that of the process' first thread.
	err = p.do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/ip_vs_stats_percpu")
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "~" {
			n, err := strconv.ParseUint(f[2], 16, 64)
			if err != nil {
				b.t.Fatal(err)
			}
			return n
		}
	}
	b.t.Fatalf("no sum in\n%s", strings.Join(lines, "\n"))
	return 0
}

// configure writes another lb4d.toml and has lb4d read it.
func (b *bed) configure(host, text string) {
	b.t.Helper()
	before := strings.Count(b.log(host), "msg=reloaded")
	if err := os.WriteFile(b.Path(host, "/etc/lb/lb4d.toml"), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Kill(host, "lb4d", syscall.SIGHUP); err != nil {
		b.t.Fatal(err)
	}
	b.logs(host, "msg=reloaded", before+1)
}

// log is what lb4d of a host has logged.
func (b *bed) log(host string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "log", host, "lb4d.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// logs waits until lb4d of a host has logged something for the nth time. Unlike
// a question to lb4d it costs the machine nothing, which carries all hosts.
func (b *bed) logs(host, what string, n int) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); strings.Count(b.log(host), what) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s has not logged %q %d times within 40s", host, what, n)
		}
	}
}

// ends waits until lb4d of a host has ended.
func (b *bed) ends(host string) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); b.pid(host) != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("lb4d on %s has not ended within 40s", host)
		}
	}
}

// TestDrainOfHost: a host that is disabled says so to its routers at once, they
// turn its traffic to the others, and it withdraws when none comes any more. No
// request breaks. A stop does the same and ends after it, a second TERM at once.
func TestDrainOfHost(t *testing.T) {
	b := newBed(t)
	const host, file = "LB4-1", "/etc/lb/disable"
	b.announces(host)
	before := string(must(os.ReadFile(b.Path(host, "/etc/lb/lb4d.toml"))))
	drainTime := func(d string) string {
		// The checks do not take the way of the users here, whose packets alone
		// are to be counted.
		text := strings.Replace(before, `drain_time = "0s"`, `drain_time = "`+d+`"`, 1)
		return strings.Replace(text, "[pool.lb7.check]\n", "[pool.lb7.check]\nvia = \"direct\"\n", 1)
	}
	b.configure(host, drainTime("10s"))
	b.until(time.Now(), 20*time.Second, "announced", b.all(host))
	traffic, err := b.StartLoad(t.Context(), load.Options{
		Kinds:        []load.Kind{load.Hold(50, 2*time.Second), load.Quick(20)},
		StallTimeout: stallAfter,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := traffic.Wait(ctx, func(r load.Result) bool { return r.Kind("hold").InFlight == 50 }); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	if err := os.WriteFile(b.Path(host, file), []byte("drill\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	turned := b.until(begin, 20*time.Second, "the routers turn away", not(b.through(host)))
	if strings.Contains(b.log(host), `msg="vip withdrawn"`) {
		t.Error("the routers turned away only when the routes were withdrawn")
	}
	t.Logf("GRACEFUL_SHUTDOWN is in effect at the routers after %v", turned.Round(time.Millisecond))
	// What was on its way comes for a moment after that, and longer where one
	// processor carries the packets of all hosts.
	count, last := b.packets(host), time.Now()
	for strings.Count(b.log(host), `msg="vip withdrawn"`) == 0 {
		if now := b.packets(host); now != count {
			count, last = now, time.Now()
		}
		time.Sleep(20 * time.Millisecond)
	}
	quiet := time.Since(last)
	t.Logf("withdrawn after %v, after no packet had come for %v", time.Since(begin).Round(time.Millisecond), quiet.Round(time.Millisecond))
	if quiet < 500*time.Millisecond {
		t.Errorf("packets came until %v before the withdrawal", quiet)
	}
	if want := `msg="vip draining" vips=`; !strings.Contains(b.log(host), want) || !strings.Contains(b.log(host), `reason="maintenance file /etc/lb/disable (drill)"`) {
		t.Errorf("the log lacks %s with its reason", want)
	}
	b.logs(host, `msg="drain over"`, 1)
	if want := fmt.Sprintf(`msg="drain over" vips=%d took=`, len(b.Topology.VIPs)); !strings.Contains(b.log(host), want) {
		t.Errorf("the log lacks %s", want)
	}
	if err := os.Remove(b.Path(host, file)); err != nil {
		t.Fatal(err)
	}
	b.until(time.Now(), 20*time.Second, "back", b.all(host))

	// A stop drains too, and ends when nothing comes late any more.
	begin = time.Now()
	if err := b.Kill(host, "lb4d", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.until(begin, 20*time.Second, "the routers turn away", not(b.through(host)))
	b.ends(host)
	if took := time.Since(begin); took < 2*time.Second || took > 30*time.Second {
		t.Errorf("the stop took %v", took)
	} else {
		t.Logf("stopped after %v", took.Round(time.Millisecond))
	}
	if err := os.WriteFile(b.Path(host, "/etc/lb/lb4d.toml"), []byte(drainTime("10m")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(host, "lb4d"); err != nil {
		t.Fatal(err)
	}
	b.announces(host)
	b.until(time.Now(), 20*time.Second, "back", b.all(host))

	// Whoever asks a second time does not wait.
	if err := b.Kill(host, "lb4d", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.until(time.Now(), 20*time.Second, "the routers turn away", not(b.through(host)))
	begin = time.Now()
	if err := b.Kill(host, "lb4d", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends(host)
	t.Logf("stopped %v after the second TERM", time.Since(begin).Round(time.Millisecond))
	if want := `msg="stopping at once, as asked again"`; !strings.Contains(b.log(host), want) {
		t.Errorf("the log lacks %s", want)
	}
	r, err := traffic.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken() > 0 || r.Kind("quick").Outcomes[load.Completed] == 0 {
		t.Errorf("%d broken, short ones %v, %v", r.Broken(), r.Kind("quick").Outcomes, r.Faults)
	}
}
