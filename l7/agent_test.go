package l7

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// agent answers HAProxy's agent checks with its word.
type agent struct {
	port  int
	word  atomic.Value
	asked atomic.Int64
}

func startAgent(t *testing.T) *agent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &agent{port: l.Addr().(*net.TCPAddr).Port}
	a.word.Store("up")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, a.word.Load().(string)+"\n")
			conn.Close()
			a.asked.Add(1)
		}
	}()
	return a
}

// A server's own agent is left to say what it says, and what it says does not
// bring back a server that is gone.
func TestAgent(t *testing.T) {
	f := newFarm(t, "a", "b")
	ag := startAgent(t)
	port := haproxytest.FreePort(t)
	h := haproxytest.Start(t, strings.ReplaceAll(base, "PORT", fmt.Sprint(port))+fmt.Sprintf(`
backend servers from base
	server-template s 1-3 127.0.0.2:9 check agent-check agent-port %d agent-inter 20ms weight 10 disabled
`, ag.port))
	p := &proxy{HAProxy: h, include: Include{Path: h.Dir + "/unused"}}
	p.restartDaemon(t, h.Socket, runtime.Options{})
	policy := tenSlots
	policy.Slots = 3
	k := &keeper{policy: policy, proxies: []*proxy{p}}
	list := f.list("a", "b")
	k.settle(t, list)

	// until goes on until slot 1 is as it should be, and then for a while
	// longer, in which that must not change and nothing may be sent.
	until := func(what string, is func(runtime.Server) bool, held string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			r := k.pass(t, list)[0]
			if s := r.Servers[1]; is(s) && r.Held[1] == held {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v, held %q", what, r.Servers[1], r.Held[1])
			}
		}
		for from := ag.asked.Load(); ag.asked.Load() < from+6; time.Sleep(5 * time.Millisecond) {
			if r := k.pass(t, list)[0]; !is(r.Servers[1]) || r.Sent > 0 {
				t.Fatalf("%s, and then %+v, with %v", what, r.Servers[1], r.Steps)
			}
		}
	}
	state := func(want runtime.State, running bool) func(runtime.Server) bool {
		return func(s runtime.Server) bool { return s.State == want && s.Running == running }
	}
	ag.word.Store("drain")
	until("its agent drains it", state(runtime.Drain, true), "drain")
	ag.word.Store("maint")
	until("its agent puts it into maintenance", state(runtime.Maint, false), "maint")
	p.restartDaemon(t, h.Socket, runtime.Options{})
	until("lb7d starts again, and leaves it there", state(runtime.Maint, false), "maint")
	ag.word.Store("ready")
	until("its agent lets it go", state(runtime.Ready, true), "")
	ag.word.Store("50%")
	until("its agent halves its weight", func(s runtime.Server) bool { return s.Weight == 5 }, "weight 5")
	ag.word.Store("up ready 100%")
	until("and gives it back", func(s runtime.Server) bool { return s.Weight == 10 && s.State == runtime.Ready }, "")

	list[0].Exclude = true
	until("excluded, whatever its agent says", func(s runtime.Server) bool { return s.State == runtime.Drain && !s.Agent }, "")
	list[0].Exclude = false
	until("not excluded any more", func(s runtime.Server) bool { return s.State == runtime.Ready && s.Agent }, "")
	list = list[1:]
	until("gone, whatever its agent says", func(s runtime.Server) bool { return s.State == runtime.Maint && !s.Agent }, "")
	if k.record.Slots[0].State != slots.Free {
		t.Errorf("slot 1 is %+v", k.record.Slots[0])
	}
}
