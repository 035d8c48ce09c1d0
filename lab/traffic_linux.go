package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"lb4d/lab/kernel"
	"lb4d/lab/load"
)

// envTraffic makes a copy of this program the users of a lab.
const envTraffic = "LAB_TRAFFIC"

// snapshotEvery is how often the users tell how it goes.
const snapshotEvery = 250 * time.Millisecond

// Init turns this process into what the lab, or the machine that it runs in,
// needs of it, and does not return then. Any program that calls [Up] or boots
// a machine must call it before all else, tests in TestMain.
func Init() {
	kernel.Init()
	if os.Getenv(envTraffic) == "" {
		return
	}
	if err := beUsers(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// order is what the users are told.
type order struct {
	load.Options
	// Window is how much of the timeline each snapshot has.
	Window time.Duration
}

// beUsers makes the load that in describes and writes snapshots of the result,
// the whole one last, until TERM.
func beUsers(in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("reading what load to make: %w", err)
	}
	g, err := load.New(o.Options)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	enc := json.NewEncoder(out)
	done := make(chan load.Result, 1)
	go func() { done <- g.Run(ctx) }()
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return enc.Encode(r)
		case <-tick.C:
			if err := enc.Encode(g.Snapshot(o.Window)); err != nil {
				return fmt.Errorf("writing a snapshot: %w", err)
			}
		}
	}
}

// Traffic is users' requests under way, made by a process on the users' host.
type Traffic struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed after the last snapshot

	mu     sync.Mutex
	latest load.Result
	wake   chan struct{} // closed and replaced at each snapshot
	err    error         // valid after ended
}

// Targets are the service addresses with their ports, all or those named.
func (l *Lab) Targets(vips ...netip.Addr) ([]netip.AddrPort, error) {
	var targets []netip.AddrPort
	for _, v := range l.Topology.VIPs {
		if len(vips) > 0 && !slices.Contains(vips, v) {
			continue
		}
		for _, port := range l.Topology.Ports {
			targets = append(targets, netip.AddrPortFrom(v, port))
		}
	}
	if len(vips) > len(targets) {
		return nil, fmt.Errorf("choosing targets: not all of %v are service addresses of the lab", vips)
	}
	return targets, nil
}

// StartLoad starts users' requests. Targets and Sources are the lab's where
// not given. It ends by itself after o.Duration, or with Stop, or with ctx.
func (l *Lab) StartLoad(ctx context.Context, o load.Options) (*Traffic, error) {
	return l.startLoad(ctx, order{Options: o, Window: load.NewGraph(nil, 0).Window()})
}

func (l *Lab) startLoad(ctx context.Context, o order) (*Traffic, error) {
	var err error
	if len(o.Targets) == 0 {
		if o.Targets, err = l.Targets(); err != nil {
			return nil, err
		}
	}
	if len(o.Sources) == 0 {
		o.Sources = l.Topology.Sources
	}
	if _, err := load.New(o.Options); err != nil { // Here, where the error is read.
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting load: %w", err)
	}
	p, err := l.place("users")
	if err != nil {
		return nil, err
	}
	// TERM first, so that an end by ctx has a result too.
	cmd := exec.CommandContext(ctx, self)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout + o.Linger
	cmd.Env = append(l.env[:len(l.env):len(l.env)], envTraffic+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting load: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting load: %w", err)
	}
	if err := p.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting load: %w", err)
	}
	t := &Traffic{cmd: cmd, ended: make(chan struct{}), wake: make(chan struct{})}
	go t.follow(out)
	err = json.NewEncoder(in).Encode(o)
	in.Close()
	if err != nil {
		t.kill()
		return nil, fmt.Errorf("starting load: %w", err)
	}
	return t, nil
}

// follow reads snapshots to the end.
func (t *Traffic) follow(out io.Reader) {
	defer close(t.ended)
	dec := json.NewDecoder(out)
	for {
		var r load.Result
		if err := dec.Decode(&r); err != nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			if werr := t.cmd.Wait(); werr != nil || t.latest.Running || t.latest.Started.IsZero() {
				t.err = fmt.Errorf("making load: the process ended early: %w", errors.Join(werr, err))
			}
			close(t.wake)
			t.wake = make(chan struct{})
			return
		}
		t.mu.Lock()
		t.latest = r
		close(t.wake)
		t.wake = make(chan struct{})
		t.mu.Unlock()
	}
}

// Snapshot is the latest result; its timelines are short while it runs.
func (t *Traffic) Snapshot() load.Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest
}

// Wait returns when cond holds for a snapshot.
func (t *Traffic) Wait(ctx context.Context, cond func(load.Result) bool) error {
	for {
		t.mu.Lock()
		latest, wake := t.latest, t.wake
		t.mu.Unlock()
		if cond(latest) {
			return nil
		}
		select {
		case <-wake:
		case <-t.ended:
			return errors.New("waiting for the load: it has ended")
		case <-ctx.Done():
			return fmt.Errorf("waiting for the load: %w", ctx.Err())
		}
	}
}

// Done is closed when it has ended.
func (t *Traffic) Done() <-chan struct{} { return t.ended }

// Stop starts no more requests, waits for those in flight as long as the
// options' Linger says, and returns the whole result.
func (t *Traffic) Stop() (load.Result, error) {
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	<-t.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest, t.err
}

func (t *Traffic) kill() {
	_ = t.cmd.Process.Kill()
	<-t.ended
}
