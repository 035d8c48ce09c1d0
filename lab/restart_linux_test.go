package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/lab/load"
)

// restartDelay is RestartSec of the unit.
const restartDelay = time.Second

// supervise starts lb4d of a host again when it has ended, as a service manager
// does.
func (b *bed) supervise(host string) {
	b.t.Helper()
	b.eventually("lb4d on "+host+" has ended", func() bool { return b.pid(host) == 0 })
	time.Sleep(restartDelay)
	if err := b.Start(host, "lb4d"); err != nil {
		b.t.Fatal(err)
	}
}

// pid is that of lb4d on a host; 0: it does not run.
func (b *bed) pid(host string) int {
	b.t.Helper()
	for _, p := range b.Processes() {
		if p.Host == host && p.Name == "lb4d" {
			return p.PID
		}
	}
	b.t.Fatalf("%s has no lb4d", host)
	return 0
}

// announces waits until lb4d of a host has come up, and all sessions with it.
func (b *bed) announces(host string) {
	b.t.Helper()
	var out []byte
	// Less than the restart time of 60 s, and more than one processor needs that
	// carries the lab while the machine is busy with other things.
	for end := time.Now().Add(50 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		var err error
		if out, err = b.Exec(b.t.Context(), host, "lbctl", "status"); err != nil {
			continue // it does not listen yet
		}
		_, peers, _ := bytes.Cut(out, []byte("AT A RESTART"))
		if bytes.Count(peers, []byte(" established ")) == 2*len(b.Topology.ByRole(RoleReflector)) && bytes.Contains(peers, []byte("kept ")) {
			return
		}
	}
	b.t.Fatalf("the sessions of %s are not up:\n%s", host, out)
}

// withdrawals are how many routes each router was told to drop so far.
func (b *bed) withdrawals() string {
	b.t.Helper()
	var told []string
	for _, h := range b.Topology.ByRole(RoleRouter) {
		for line := range strings.Lines(b.run(h.Name, "birdc", "-s", "/run/bird/bird.ctl", "show protocols all")) {
			if name, counts, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "Import withdraws" {
				told = append(told, h.Name+" "+strings.Fields(counts)[0])
			}
		}
	}
	return strings.Join(told, ", ")
}

// TestRestart: lb4d is killed, hands over and is upgraded under 200 downloads
// and a stream of short requests. No router sees a withdrawal, and none breaks.
// One that hangs is withdrawn by the hold time.
func TestRestart(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"lb4d", "lb7d", "lbctl"} {
		copyProgram(t, filepath.Join("..", "bin", name), filepath.Join(bin, name))
	}
	b := newBedOf(t, Options{Bin: bin, Reflector: BIRD})
	const host = "LB4-1"
	b.announces(host)
	traffic, err := b.StartLoad(t.Context(), load.Options{
		Kinds: []load.Kind{load.Hold(200, 5*time.Second), load.Quick(10)},
		// A flow that lost its way stalls for good; the machine, for a while.
		StallTimeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := traffic.Wait(ctx, func(r load.Result) bool { return r.Kind("hold").InFlight == 200 }); err != nil {
		t.Fatal(err)
	}

	before := b.withdrawals()
	if !strings.Contains(before, "R1 ") {
		t.Fatalf("the routers tell of withdrawals: %q", before)
	}
	for _, way := range []struct {
		name string
		do   func() error
	}{
		{"kill -9", func() error { return b.Kill(host, "lb4d", syscall.SIGKILL) }},
		{"USR2", func() error { return b.Kill(host, "lb4d", syscall.SIGUSR2) }},
		{"an upgrade", func() error {
			// As a package manager does: another file under the name.
			copyProgram(t, filepath.Join(bin, "lb4d"), filepath.Join(bin, "lb4d.new"))
			if err := os.Rename(filepath.Join(bin, "lb4d.new"), filepath.Join(bin, "lb4d")); err != nil {
				return err
			}
			return b.Kill(host, "lb4d", syscall.SIGUSR2)
		}},
	} {
		begin := time.Now()
		b.never("after "+way.name+", a VIP without a route through "+host, not(b.all(host)), func() {
			if err := way.do(); err != nil {
				t.Fatal(err)
			}
			b.supervise(host)
			b.announces(host)
		})
		t.Logf("%s: sessions up again after %v", way.name, time.Since(begin).Round(time.Millisecond))
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", b.pid(host))); err != nil || strings.Contains(exe, "deleted") {
			t.Errorf("after %s it runs %q, %v", way.name, exe, err)
		}
		if after := b.withdrawals(); after != before {
			t.Errorf("withdrawals after %s: %s; before: %s", way.name, after, before)
		}
	}
	time.Sleep(21 * time.Second)
	held := traffic.Snapshot().Kind("hold").InFlight
	r, err := traffic.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken() > 0 || held != 200 || r.Kind("quick").Outcomes[load.Completed] == 0 {
		t.Errorf("%d broken, %d of 200 downloads still held, short ones %v, %v", r.Broken(), held, r.Kind("quick").Outcomes, r.Faults)
	}

	begin := time.Now()
	if err := b.Kill(host, "lb4d", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The lab's hold time is 6 s, its restart time 60 s.
	gone := b.until(begin, 20*time.Second, "out after SIGSTOP", not(b.through(host)))
	t.Logf("SIGSTOP: out of the routers' tables after %v", gone)
	if err := b.Kill(host, "lb4d", syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.until(time.Now(), 20*time.Second, "back after SIGCONT", b.all(host))
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}
