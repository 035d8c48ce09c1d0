package health

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestObserverOverTheNetwork watches real targets of every kind while the
// set of targets changes all the time. Meant for the race detector.
func TestObserverOverTheNetwork(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	up := serve(t, "127.0.0.1:0", replying("HTTP/1.1 200 OK\r\n\r\n"))
	draining := serve(t, "127.0.0.1:0", replying("HTTP/1.1 503 Service Unavailable\r\n\r\n"))
	garbage := serve(t, "127.0.0.1:0", replying("220 mail.example.net ESMTP\r\n"))
	silent := serve(t, "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	closing := serve(t, "127.0.0.1:0", func(net.Conn) {})

	var changes atomic.Int64
	o := New(slog.New(slog.DiscardHandler), func() { changes.Add(1) })
	defer o.Close()
	want := map[Target]State{}
	targets := map[Target]Check{}
	for i := range 100 {
		kinds := []struct {
			port  uint16
			state State
		}{{up.Port(), Up}, {draining.Port(), Draining}, {garbage.Port(), Down}, {silent.Port(), Down}, {closing.Port(), Down}}
		kind := kinds[i%len(kinds)]
		check := httpCheck(kind.port, 2*time.Second)
		if kind.port == silent.Port() {
			check.Timeout = quick
		}
		check.Interval = 20 * time.Millisecond
		at := target(i)
		at.Addr = up.Addr()
		targets[at], want[at] = check, kind.state
	}

	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		some := map[Target]Check{}
		for target, check := range targets {
			if rand.IntN(3) > 0 {
				check.Interval += time.Duration(rand.IntN(3)) * time.Millisecond
				some[target] = check
			}
		}
		o.Set(some)
		if n := len(o.Statuses()); n != len(some) {
			t.Fatalf("%d statuses for %d targets", n, len(some))
		}
		runtime.Gosched()
	}

	o.Set(targets)
	wrong := func() (target Target, s Status, found bool) {
		for target, s := range o.Statuses() {
			if s.State != want[target] {
				return target, s, true
			}
		}
		return Target{}, Status{}, false
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		target, s, found := wrong()
		if !found {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v is %+v, want %v", target, s, want[target])
		}
	}
	if changes.Load() == 0 {
		t.Error("no change was told")
	}

	o.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// The five listeners of this test are still there.
		n := runtime.NumGoroutine()
		if n <= goroutines+5 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before the test and 5 listeners", n, goroutines)
		}
	}
}

// BenchmarkProbe is one HTTP probe over loopback, the target's part included.
func BenchmarkProbe(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			replying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(conn)
			conn.Close()
		}
	}()
	address := l.Addr().(*net.TCPAddr).AddrPort()
	check := httpCheck(address.Port(), slow)
	b.ReportAllocs()
	for b.Loop() {
		if got := probe(b.Context(), direct, Target{Addr: address.Addr()}, check); got.Verdict != Pass {
			b.Fatal(got.Words)
		}
	}
}
