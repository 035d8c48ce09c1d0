package directory

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
)

// benchHosts is how many hosts the maps have.
const benchHosts = 100_000

// BenchmarkAgainstLua prints the table of bench/directory.md: lb7d with the
// shipped configuration, a Lua action that asks the directory for each request,
// and a map filled by hand, in one HAProxy and one run. See make
// bench-directory.
func BenchmarkAgainstLua(b *testing.B) {
	names, pods, lines := hosts(benchHosts)
	var row rows
	for b.Loop() {
		row = nil
		s, lua := newRace(b, lines)
		for h, p := range pods {
			s.book.set(h, p)
		}
		kill := s.spawn()
		race(b, &row, s, lua, names, pods, kill)
	}
	fmt.Print(row.table())
}

// newRace is a site whose pods answer within HAProxy, so that what is measured
// is the way to them, and a frontend with the Lua action beside.
func newRace(t testing.TB, lines string) (s *site, lua string) {
	port := haproxytest.FreePort(t)
	dir := t.TempDir()
	s = newSiteWith(t, lines, func(config string, book string) string {
		_, bookPort, _ := net.SplitHostPort(book)
		for i := range 3 {
			at := strings.Index(config, fmt.Sprintf("\tserver pod%d ", i))
			end := at + strings.IndexByte(config[at:], '\n')
			config = config[:at] + fmt.Sprintf("\thttp-request return status 200 content-type text/plain string \"pod%d answers\"", i) + config[end:]
		}
		text, err := os.ReadFile("testdata/directory.lua")
		if err != nil {
			t.Fatal(err)
		}
		mapFile := filepath.Join(dir, "backend.map")
		script := strings.NewReplacer("PORT", bookPort, `"MAP"`, `"`+mapFile+`"`).Replace(string(text))
		for name, text := range map[string]string{"directory.lua": script, "backend.map": lines} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprintf("global\n\tlua-load %s\n", filepath.Join(dir, "directory.lua")) + config + fmt.Sprintf(`
frontend lua from http
	bind 127.0.0.1:%d
	option forwardfor
	http-request set-header x-forwarded-proto %%[ssl_fc,iif(https,http)]
	use_backend %%[hdr(host),lower,map(%s)] if FALSE
	http-request lua.get_backend
	use_backend %%[hdr(host),lower,map(%s)]
`, port, mapFile, mapFile)
	}, func(c *Config) { c.Timeout = time.Second })
	return s, fmt.Sprintf("127.0.0.1:%d", port)
}

// race takes the measures, the Lua's first.
func race(b *testing.B, row *rows, s *site, lua string, names []string, pods map[string]string, kill func()) {
	calls := func(do func()) int64 {
		before := s.book.calls.Load()
		do()
		return s.book.calls.Load() - before
	}
	// Requests a second, each in turn so that what else the machine does hits
	// all of them.
	var luaRate, handRate, ourRate []float64
	var luaN, luaCalls, ourCalls int64
	for range 5 {
		luaCalls += calls(func() {
			n, rate := saturate(b, lua, names, 2*time.Second)
			luaN, luaRate = luaN+n, append(luaRate, rate)
		})
	}
	var part []float64 // ours of by hand, side by side
	for range 21 {
		_, hand := saturate(b, s.plain, names, 400*time.Millisecond)
		handRate = append(handRate, hand)
		ourCalls += calls(func() {
			_, rate := saturate(b, s.http, names, 400*time.Millisecond)
			ourRate, part = append(ourRate, rate), append(part, rate/hand)
		})
	}
	row.add("directory calls, every host cached", fmt.Sprintf("%.1f a request", float64(luaCalls)/float64(max(1, luaN))), "0", fmt.Sprint(ourCalls))
	row.add("requests/s, 100,000 hosts", fmt.Sprintf("%.0f", median(luaRate)), fmt.Sprintf("%.0f", median(handRate)), fmt.Sprintf("%.0f", median(ourRate)))
	row.add("as a multiple", "1", fmt.Sprintf("%.0f", median(handRate)/median(luaRate)), fmt.Sprintf("%.0f (%.2f of by hand)", median(ourRate)/median(luaRate), median(part)))

	// One new host, 200 at once. A machine that was saturated may have kept
	// lb7d from a check.
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.say("show stat misses 4 -1"), ",UP,") && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	s.book.set("new.example.org", "pod1")
	s.book.wait.Store(int64(300 * time.Millisecond))
	many := func(at string) string {
		var bad atomic.Int64
		n := calls(func() {
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					if status, text, err := fetch(at, "new.example.org"); err != nil || status != 200 || !strings.HasPrefix(text, "pod1") {
						bad.Add(1)
					}
				})
			}
			wg.Wait()
		})
		return fmt.Sprintf("%d, %d failed", n, bad.Load())
	}
	row.add("calls for 200 requests of one new host", many(lua), "-", many(s.http))
	s.book.wait.Store(0)

	// Times of cached hosts, in peace and not.
	times := func(at string, clients int, d time.Duration, meanwhile func()) *load {
		l := (&load{at: at, hosts: names[:1000], pods: pods, clients: clients, pause: 5 * time.Millisecond}).start()
		if meanwhile != nil {
			meanwhile()
		} else {
			time.Sleep(d)
		}
		close(l.stop)
		l.wg.Wait()
		slices.Sort(l.took)
		return l
	}
	for range 2 {
		times(s.http, 4, time.Second, nil) // warm
	}
	const span = time.Second
	var quiet, busy, flooded, asBusy, asFlooded []float64
	for range 15 {
		quiet = append(quiet, ms(times(s.http, 4, span, nil).quantile(0.99)))
		// The same number of connections for hosts that are known: what the
		// clients and HAProxy take of the processors by themselves.
		busy = append(busy, ms(times(s.http, 4, 0, func() { floodOf(s.http, 500, span, func(n int) string { return names[n] }) }).quantile(0.99)))
		flooded = append(flooded, ms(times(s.http, 4, 0, func() { flood(s.http, 500, span) }).quantile(0.99)))
		q := quiet[len(quiet)-1]
		asBusy, asFlooded = append(asBusy, busy[len(busy)-1]/q), append(asFlooded, flooded[len(flooded)-1]/q)
	}
	row.add("p99 of cached hosts, in peace", "-", "-", fmt.Sprintf("%.1f ms", median(quiet)))
	row.add("p99 while 500 known hosts/s come on new connections", "-", "-", fmt.Sprintf("%.1f ms (%.2f of that)", median(busy), median(asBusy)))
	row.add("p99 while 500 unknown hosts/s flood in", "-", "-", fmt.Sprintf("%.1f ms (%.2f of that)", median(flooded), median(asFlooded)))

	s.book.wait.Store(int64(8 * time.Second))
	hang := func() {
		go func() { _, _, _ = fetch(s.http, "other.example.org") }()
		time.Sleep(9 * time.Second)
	}
	hung := [2]*load{times(lua, 4, 0, hang), times(s.http, 4, 0, hang)}
	row.add("p99 of cached hosts, the directory hangs for 8 s", text(hung[0]), "-", text(hung[1]))
	s.book.wait.Store(0)
	time.Sleep(2 * time.Second)

	reload := func(at string) string {
		var n int64
		l := times(at, 4, 0, func() {
			n = calls(func() {
				for range 3 {
					time.Sleep(500 * time.Millisecond)
					s.Reload(b)
				}
				time.Sleep(500 * time.Millisecond)
			})
		})
		return fmt.Sprintf("%d wrong, %d failed, %d calls", len(l.wrong), len(l.failed), n)
	}
	row.add("HAProxy reloads three times under load", reload(lua), "-", reload(s.http))

	l := times(s.http, 4, 0, func() { time.Sleep(time.Second); kill(); time.Sleep(2 * time.Second) })
	row.add("lb7d killed under load, cached hosts", "-", "-", fmt.Sprintf("%d of %d failed", len(l.failed)+len(l.wrong), len(l.took)))
}

func text(l *load) string {
	return fmt.Sprintf("%.1f ms, %d of %d failed", ms(l.quantile(0.99)), len(l.failed)+len(l.wrong), len(l.took))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// saturate asks for hosts as fast as it can, on connections that are kept, and
// tells how many requests were answered, and how many a second.
func saturate(t testing.TB, at string, names []string, d time.Duration) (n int64, rate float64) {
	const clients = 64
	var wg sync.WaitGroup
	var total atomic.Int64
	begun := time.Now()
	for i := range clients {
		wg.Go(func() {
			conn, err := net.Dial("tcp", at)
			if err != nil {
				t.Errorf("saturating: %v", err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(begun.Add(d + 20*time.Second))
			in := bufio.NewReader(conn)
			req := make([]byte, 0, 128)
			count := int64(0)
			for k := i * (len(names) / clients); time.Since(begun) < d; k++ {
				req = append(append(append(req[:0], "GET / HTTP/1.1\r\nHost: "...), names[k%len(names)]...), "\r\n\r\n"...)
				if _, err := conn.Write(req); err != nil {
					break
				}
				if !answered(in) {
					break
				}
				count++
			}
			total.Add(count)
		})
	}
	wg.Wait()
	return total.Load(), float64(total.Load()) / time.Since(begun).Seconds()
}

// answered reads one answer of a pod: its head and "podN answers".
func answered(in *bufio.Reader) bool {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false
		}
		if len(line) <= 2 {
			break
		}
	}
	_, err := in.Discard(len("podN answers"))
	return err == nil
}

// flood asks for hosts that do not exist, so many a second, from several
// sources.
func flood(at string, rate int, d time.Duration) {
	floodOf(at, rate, d, func(n int) string { return fmt.Sprintf("x%d-%d.example.org", n, time.Now().UnixNano()) })
}

// floodOf asks for the hosts that it is told, each on a connection of its own.
func floodOf(at string, rate int, d time.Duration, host func(n int) string) {
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	end := time.After(d)
	for n := 0; ; n++ {
		select {
		case <-end:
			wg.Wait()
			return
		case <-tick.C:
		}
		source := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%50))}
		wg.Go(func() {
			dialer := net.Dialer{LocalAddr: source, Timeout: 5 * time.Second}
			conn, err := dialer.Dial("tcp", at)
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host(n))
			_, _ = io.Copy(io.Discard, conn)
		})
	}
}

// rows are the table.
type rows [][4]string

func (r *rows) add(what, lua, hand, ours string) { *r = append(*r, [4]string{what, lua, hand, ours}) }

func (r rows) table() string {
	var b strings.Builder
	b.WriteString("\n| measure | Lua | map by hand | lb7d |\n|---|---|---|---|\n")
	for _, c := range r {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(c[:], " | "))
	}
	return b.String()
}

// BenchmarkMap is what changes of a map of 100,000 lines take.
func BenchmarkMap(b *testing.B) {
	names, pods, text := hosts(benchHosts)
	s := newSite(b, text, nil)
	c, err := runtime.New(s.Socket, runtime.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var all []pair
	for _, h := range names {
		all = append(all, pair{h, pods[h]})
	}
	file := s.cfg.Map
	one := func(cmd runtime.Command, err error) error {
		if err != nil {
			return err
		}
		return c.Do(b.Context(), cmd)[0]
	}
	n := 0 // each time another line, from all over the map
	host := func() string { n++; return names[n*7919%len(names)] }
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"set one line", func() error { return one(runtime.SetMap(file, host(), "pod0")) }},
		{"delete one line", func() error { return one(runtime.DelMap(file, host())) }},
		{"add one line", func() error { return one(runtime.AddMap(file, "x"+host(), "pod0")) }},
		{"give all lines anew", func() error { return c.ReplaceMap(b.Context(), file, lines(all)) }},
		{"read all lines", func() error {
			return c.ShowMap(b.Context(), file, func(string, string) error { return nil })
		}},
	} {
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				if err := m.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
