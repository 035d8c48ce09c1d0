package load

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listen opens a port of this host for the time of a test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func target(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// origin starts a Server.
func origin(t testing.TB) netip.AddrPort {
	t.Helper()
	l := listen(t)
	s := &Server{Name: "s1"}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return target(l)
}

// misbehave starts a server that reads a request of each connection and leaves
// the answer to f.
func misbehave(t testing.TB, f func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					f(c.(*net.TCPConn))
				}
			}()
		}
	}()
	return target(l)
}

// one makes one request and returns what became of it.
func one(t *testing.T, ctx context.Context, o Options) KindResult {
	t.Helper()
	o.Kinds[0].Rate, o.Kinds[0].Concurrency = 1, 1
	o.Duration, o.Linger = time.Millisecond, time.Minute
	if _, ok := ctx.Deadline(); ok {
		o.Duration, o.Linger = time.Minute, 0
		o.Kinds[0].Rate = 0.01
	}
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return r.Kinds[0]
}

func TestOutcomes(t *testing.T) {
	pattern := func(n int) string {
		b := make([]byte, n)
		fill(b, 0)
		return string(b)
	}
	say := func(s string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { c.Write([]byte(s)) }
	}
	good := origin(t)
	full := overflown(t)
	for _, tt := range []struct {
		name   string
		target netip.AddrPort
		source string
		path   string
		want   Outcome
	}{
		{name: "quick", target: good, want: Completed},
		{name: "slow", target: good, path: "/slow?seconds=0.3&bytes=100000", want: Completed},
		{name: "slow and empty", target: good, path: "/slow?seconds=0.1&bytes=0", want: Completed},
		{name: "chunks in pieces", target: misbehave(t, func(c *net.TCPConn) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nX-Pattern: 1\r\n\r\n3;a=b\r\n\x00\x01\x02\r\n1\r\n\x03\r\n0\r\nTrailer: x\r\n\r\n") {
				c.Write([]byte{b})
				time.Sleep(time.Millisecond)
			}
		}), want: Completed},
		{name: "no chunk", target: misbehave(t, say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n")), want: Wrong},
		{name: "chunked", target: misbehave(t, say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Pattern: 1\r\n\r\n2\r\n\x00\x01\r\n0\r\n\r\n")), want: Completed},
		{name: "until the end", target: misbehave(t, say("HTTP/1.0 200 OK\r\nx-pattern: 1\r\n\r\n"+pattern(5000))), want: Completed},
		{name: "no listener", target: listenBacklog(t, -1), want: Refused},
		{name: "reset before the answer", target: misbehave(t, func(c *net.TCPConn) { c.SetLinger(0) }), want: Reset},
		{name: "reset in the body", target: misbehave(t, func(c *net.TCPConn) {
			say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")(c)
			time.Sleep(50 * time.Millisecond)
			c.SetLinger(0)
		}), want: Reset},
		{name: "silence", target: misbehave(t, func(c *net.TCPConn) { time.Sleep(5 * time.Second) }), want: Stalled},
		{name: "silence in the body", target: misbehave(t, func(c *net.TCPConn) {
			say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")(c)
			time.Sleep(5 * time.Second)
		}), want: Stalled},
		{name: "longer than the timeout", target: good, path: "/slow?seconds=60&bytes=100000", want: Stalled},
		{name: "handshake without an answer", target: full, want: ConnectTimeout},
		{name: "another status", target: good, path: "/nothing", want: Wrong},
		{name: "cut short", target: misbehave(t, say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")), want: Wrong},
		{name: "changed", target: misbehave(t, say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Pattern: 1\r\n\r\n\x00\x01\x03")), want: Wrong},
		{name: "chunks cut short", target: misbehave(t, say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")), want: Wrong},
		{name: "no length", target: misbehave(t, say("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")), want: Wrong},
		{name: "closed without a word", target: misbehave(t, say("")), want: Wrong},
		{name: "closed in the headers", target: misbehave(t, say("HTTP/1.1 200 OK\r\nX-")), want: Wrong},
		{name: "no HTTP", target: misbehave(t, say("220 ready\r\n")), want: Wrong},
		{name: "endless line", target: misbehave(t, say(strings.Repeat("a", 1<<20))), want: Wrong},
		{name: "endless headers", target: misbehave(t, say("HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 1<<17))), want: Wrong},
		{name: "no such source", target: good, source: "192.0.2.77", want: Local},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := Options{
				Targets: []netip.AddrPort{tt.target}, Kinds: []Kind{{Name: "k", Path: "/" + strings.TrimPrefix(tt.path, "/")}},
				ConnectTimeout: 300 * time.Millisecond, StallTimeout: 600 * time.Millisecond, Timeout: 1500 * time.Millisecond,
			}
			if tt.source != "" {
				o.Sources = []netip.Addr{netip.MustParseAddr(tt.source)}
			}
			got := one(t, t.Context(), o)
			if diff := cmp.Diff(map[Outcome]int{tt.want: 1}, got.Outcomes); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if tt.target == good && tt.want == Completed && got.Servers["s1"] != 1 {
				t.Errorf("got servers %v, want s1", got.Servers)
			}
		})
	}
}

// overflown returns an address whose queue of connections is full, where the
// kernel drops every handshake.
func overflown(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listenBacklog(t, 0)
	for range 4 {
		go func() {
			if c, err := net.DialTimeout("tcp", l.String(), time.Second); err == nil {
				t.Cleanup(func() { c.Close() })
			}
		}()
	}
	time.Sleep(100 * time.Millisecond)
	return l
}

func TestUnfinished(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got := one(t, ctx, Options{Targets: []netip.AddrPort{origin(t)}, Kinds: []Kind{Slow(1, 30*time.Second)}})
	if got.Outcomes[Unfinished] != 1 || got.InFlight != 0 {
		t.Errorf("got %v and %d in flight, want 1 unfinished and 0", got.Outcomes, got.InFlight)
	}
}

// TestRun lets two kinds run beside each other, from several addresses, and
// breaks the service on the way.
func TestRun(t *testing.T) {
	l := listen(t)
	s := &Server{Name: "s1"}
	go s.Serve(l)
	defer s.Close()
	sources, err := ParseSources("127.0.1.0/28")
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{
		Targets: []netip.AddrPort{target(l)}, Sources: sources,
		Kinds:  []Kind{Quick(100), Slow(20, 500*time.Millisecond)},
		Linger: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan Result, 1)
	go func() { results <- g.Run(ctx) }()
	time.Sleep(1500 * time.Millisecond)
	if snap := g.Snapshot(time.Second); !snap.Running || snap.Broken() != 0 || len(snap.Kinds[0].Timeline.Completed) > 10 {
		t.Errorf("while it runs: %+v", snap)
	}
	broke := time.Now()
	s.Close()
	time.Sleep(700 * time.Millisecond)
	cancel()
	r := <-results

	quick, slow := r.Kind("quick"), r.Kind("slow")
	if n := quick.Outcomes[Completed]; n < 80 || n > 160 {
		t.Errorf("%d quick requests completed in 1.5 s at 100/s", n)
	}
	if n := quick.Outcomes[Refused]; n < 30 {
		t.Errorf("%d quick requests refused after the end of the server", n)
	}
	if n := slow.Broken(); n < 10 {
		t.Errorf("%d downloads broke when the server was cut off, want most of 20", n)
	}
	for _, k := range r.Kinds {
		total := 0
		for _, n := range k.Outcomes {
			total += n
		}
		if total != k.Started || k.InFlight != 0 {
			t.Errorf("%s: %d outcomes of %d requests, %d in flight", k.Name, total, k.Started, k.InFlight)
		}
	}
	if r.Running || r.Broken() == 0 || r.BrokenBetween(broke.Add(-Step), time.Now()) != r.Broken() || r.BrokenBetween(r.Started, broke.Add(-2*Step)) != 0 {
		t.Errorf("%d broke, %d of them since the server's end", r.Broken(), r.BrokenBetween(broke, time.Now()))
	}
	if gap, began := r.LongestGap("quick", r.Started, time.Now()); gap < 500*time.Millisecond || began.Sub(broke).Abs() > 3*Step {
		t.Errorf("the longest gap is %v from %v, want 0.7 s from %v", gap, began, broke)
	}
	seen := make(map[netip.Addr]bool)
	for _, f := range r.Faults {
		seen[f.Source] = true
	}
	if len(seen) < 10 {
		t.Errorf("faults came from %d sources of %d: %v", len(seen), len(sources), seen)
	}

	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Kinds, back.Kinds); diff != "" {
		t.Errorf("through JSON (-want +got):\n%s", diff)
	}
}

// TestSkipped keeps the rate of starts bounded by the concurrency, and says so.
func TestSkipped(t *testing.T) {
	silent := misbehave(t, func(c *net.TCPConn) { time.Sleep(2 * time.Second) })
	r, err := Run(t.Context(), Options{
		Targets: []netip.AddrPort{silent}, Duration: time.Second,
		Kinds: []Kind{{Name: "k", Path: "/", Rate: 100, Concurrency: 5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if k := r.Kinds[0]; k.Started != 5 || k.Skipped < 50 || k.Outcomes[Unfinished] != 5 {
		t.Errorf("started %d, skipped %d, outcomes %v", k.Started, k.Skipped, k.Outcomes)
	}
}

func TestNewRefuses(t *testing.T) {
	at := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no target"},
		{Options{Targets: at}, "no kind"},
		{Options{Targets: []netip.AddrPort{{}}, Kinds: []Kind{Quick(1)}}, "no address"},
		{Options{Targets: at, Kinds: []Kind{{Name: "k", Path: "nothing"}}}, `"nothing"`},
		{Options{Targets: at, Kinds: []Kind{{Name: "k", Path: "/a b"}}}, "no path"},
		{Options{Targets: at, Kinds: []Kind{{Name: "k", Path: "/", Rate: -1}}}, "negative"},
	} {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q in it", tt.o, err, tt.want)
		}
	}
}

// perSecond is what the benchmarks ask for.
const perSecond = 200

// spent reports the processor time that a benchmark took for each request,
// servers included.
func spent(b *testing.B, run func()) {
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	run()
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	took := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(took)/float64(b.N)/1000, "cpu-us/op")
}

// BenchmarkQuick is what a quick request costs at a usual rate.
func BenchmarkQuick(b *testing.B) {
	at := origin(b)
	spent(b, func() {
		r, err := Run(b.Context(), Options{
			Targets: []netip.AddrPort{at}, Kinds: []Kind{Quick(perSecond)},
			Duration: time.Duration(b.N) * time.Second / perSecond, Linger: time.Minute,
		})
		if err != nil || r.Broken() > 0 {
			b.Fatal(err, r.Faults)
		}
	})
}

// BenchmarkSlow is what a download of eight seconds costs.
func BenchmarkSlow(b *testing.B) {
	at := origin(b)
	spent(b, func() {
		r, err := Run(b.Context(), Options{
			Targets: []netip.AddrPort{at}, Kinds: []Kind{Slow(b.N, 8*time.Second)},
			Duration: 8 * time.Second, Linger: time.Minute,
		})
		if err != nil || r.Broken() > 0 {
			b.Fatal(err, r.Faults)
		}
	})
}

// BenchmarkNetHTTP is BenchmarkQuick with net/http on both sides.
func BenchmarkNetHTTP(b *testing.B) {
	l := listen(b)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") }))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	spent(b, func() {
		var requests sync.WaitGroup
		every := time.NewTicker(time.Second / perSecond)
		for range b.N {
			<-every.C
			requests.Go(func() {
				r, err := client.Get("http://" + l.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			})
		}
		requests.Wait()
	})
}
