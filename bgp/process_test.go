package bgp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// asSpeaker in the environment makes of the test binary a speaker, so that one
// can be killed. It holds the speech.
const asSpeaker = "BGP_TEST_AS_SPEAKER"

// speech is what a speaker in a process of its own says.
type speech struct {
	Options  Options
	Peers    []Peer
	Prefixes []string
}

// speak is that process. USR2 has it leave without a word.
func speak() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var say speech
	fail(json.Unmarshal([]byte(os.Getenv(asSpeaker)), &say))
	leave := make(chan os.Signal, 1)
	signal.Notify(leave, syscall.SIGUSR2)
	s, err := Start(context.Background(), say.Options, slog.New(slog.NewTextHandler(os.Stderr, nil)), func() {})
	fail(err)
	fail(s.Set(prefixes(say.Prefixes...)))
	fail(s.SetPeers(say.Peers))
	<-leave
	s.Abandon()
	os.Exit(0)
}

// process is a speaker in a process of its own.
type process struct {
	*exec.Cmd
	log   string // a file
	ended chan struct{}
}

// startProcess starts a speaker in a process of its own, which lives until the
// test ends.
func startProcess(t *testing.T, say speech) *process {
	t.Helper()
	say.Options.AS, say.Options.RouterID = 65000, netip.MustParseAddr("192.0.2.132")
	spoken, err := json.Marshal(say)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{exec.Command("/proc/self/exe"), log.Name(), make(chan struct{})}
	p.Env = append(os.Environ(), asSpeaker+"="+string(spoken))
	p.Stdout, p.Stderr = log, log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait()
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("log of the speaker:\n%s", p.told(t))
		}
	})
	return p
}

func (p *process) told(t *testing.T) string {
	t.Helper()
	told, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(told)
}

// tells waits until it has logged something.
func (p *process) tells(t *testing.T, what string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		told := p.told(t)
		return strings.Contains(told, what), fmt.Sprintf("no %q in\n%s", what, told)
	})
}

// end ends it by a signal.
func (p *process) end(sig syscall.Signal) {
	_ = p.Process.Signal(sig)
	<-p.ended
}

// losses are the prefixes that a kernel had no route to for a moment.
type losses struct {
	mu   sync.Mutex
	lost []string
}

// watch notes the routes that the kernel of the neighbour loses from now on.
func (n *neighbour) watch(t *testing.T) *losses {
	t.Helper()
	ns, err := netns.GetFromPid(n.pid)
	if err != nil {
		t.Fatal(err)
	}
	l, stop, updates := &losses{}, make(chan struct{}), make(chan netlink.RouteUpdate, 256)
	if err := netlink.RouteSubscribeWithOptions(updates, stop, netlink.RouteSubscribeOptions{Namespace: &ns}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(stop)
		_ = ns.Close()
	})
	go func() {
		for u := range updates {
			if u.Type == unix.RTM_DELROUTE && u.Dst != nil {
				l.mu.Lock()
				l.lost = append(l.lost, u.Dst.String())
				l.mu.Unlock()
			}
		}
	}()
	return l
}

func (l *losses) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lost, " ")
}
