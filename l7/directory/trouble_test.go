package directory

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// While the directory hangs, known hosts do not notice, and requests for new
// ones end in time.
func TestDirectoryHangs(t *testing.T) {
	names, pods, lines := hosts(50)
	s := newSite(t, lines, func(c *Config) { c.Timeout = 500 * time.Millisecond })
	for h, p := range pods {
		s.book.set(h, p)
	}
	s.run()
	quiet := (&load{at: s.http, hosts: names, pods: pods, clients: 4, pause: 2 * time.Millisecond}).start()
	time.Sleep(time.Second)
	quiet.end(t, "in peace")
	if n := s.book.calls.Load(); n != 0 {
		t.Errorf("%d calls with every host in the map", n)
	}

	s.book.wait.Store(int64(8 * time.Second))
	hung := (&load{at: s.http, hosts: names, pods: pods, clients: 4, pause: 2 * time.Millisecond}).start()
	var wg sync.WaitGroup
	for i := range 60 { // more than max_calls
		wg.Go(func() {
			begun := time.Now()
			status, _, err := fetch(s.http, fmt.Sprintf("new%d.example.org", i))
			if took := time.Since(begun); err != nil || status != http.StatusServiceUnavailable || took > 5*time.Second {
				t.Errorf("a new host: %d after %s, %v; want 503 in time", status, took, err)
			}
		})
	}
	wg.Wait()
	hung.end(t, "while the directory hangs")
	// On a machine that others use too, a bound that would tell of a wait for
	// the directory, and of nothing less.
	if q, h := quiet.quantile(0.99), hung.quantile(0.99); h > 20*q+200*time.Millisecond {
		t.Errorf("p99 of known hosts: %s in peace, %s while the directory hangs", q, h)
	}
	s.wait("the directory counts as away", func() bool { return s.dir.Status().State == "stale" })
	if p := strings.Join(s.dir.Status().Problems, "; "); !strings.Contains(p, "no answer within 500ms") {
		t.Errorf("problems: %s", p)
	}
	s.book.wait.Store(0)
	s.book.set("late.example.org", "pod1")
	s.wait("it answers again", func() bool {
		status, _, _ := fetch(s.http, "late.example.org")
		return status == http.StatusOK && s.dir.Status().State == "serving"
	})
}

// Old answers serve on while the directory is away; then what has changed is
// put right without anybody asking for it, and before it is old.
func TestStaleThenRefreshed(t *testing.T) {
	t.Parallel()
	_, pods, lines := hosts(30)
	s := newSite(t, lines, func(c *Config) { c.TTL, c.UsageTable = time.Second, "" })
	for h, p := range pods {
		s.book.set(h, p)
	}
	s.book.broken.Store(true)
	s.run()
	s.wait("old answers are told of", func() bool { st := s.dir.Status(); return st.State == "stale" && st.Stale == 30 })
	if diff := cmp.Diff(pods, s.lines()); diff != "" {
		t.Errorf("the map while the directory is away (-want +got):\n%s", diff)
	}
	if a, err := s.dir.Lookup(t.Context(), "host1.example.org"); err != nil || !a.Stale || a.Source != "map" {
		t.Errorf("Lookup: %+v, %v", a, err)
	}
	s.book.broken.Store(false)
	s.book.set("host1.example.org", "pod0")
	pods["host1.example.org"] = "pod0"
	s.wait("the map follows", func() bool { return cmp.Equal(pods, s.lines()) && s.dir.Status().Stale == 0 })
	if n := s.dir.Status().Counters.Misses; n != 0 {
		t.Errorf("%d misses", n)
	}

	// A directory that has lost its data does not take all hosts down.
	s.book.mu.Lock()
	clear(s.book.hosts)
	s.book.mu.Unlock()
	s.wait("it is told of", func() bool { return strings.Contains(strings.Join(s.dir.Status().Problems, ";"), "lost its data") })
	time.Sleep(300 * time.Millisecond)
	if n := len(s.lines()); n < 10 {
		t.Errorf("%d of 30 hosts are left", n)
	}
}

// A reload under load, with hosts that the file does not have yet, and a
// restart.
func TestReload(t *testing.T) {
	names, pods, lines := hosts(50)
	s := newSite(t, lines, nil)
	for i := range 20 {
		s.book.set(fmt.Sprintf("new%d.example.org", i), "pod1")
	}
	s.run()
	l := (&load{at: s.http, hosts: names, pods: pods, clients: 4, pause: time.Millisecond}).start()
	var late []string
	for i := range 3 {
		for n := range 5 {
			host := fmt.Sprintf("new%d.example.org", 5*i+n)
			late = append(late, host)
			if _, text := s.get(host); !strings.HasPrefix(text, "pod1 ") {
				t.Errorf("%s: %s", host, text)
			}
		}
		s.Reload(t)
		for _, host := range late {
			if _, text := s.get(host); !strings.HasPrefix(text, "pod1 ") {
				t.Errorf("after a reload, %s: %s", host, text)
			}
		}
	}
	s.wait("the map has all", func() bool { return len(s.lines()) == 65 })
	l.end(t, "through three reloads")
	if n := s.book.calls.Load(); n != 15 {
		t.Errorf("%d calls for 15 new hosts", n)
	}

	// A HAProxy that starts anew finds all of them in the file.
	s.wait("the file has all", func() bool {
		text, _ := os.ReadFile(s.cfg.Map)
		return strings.Count(string(text), "\n") == 66
	})
	s.Stop()
	s.wait("HAProxy's absence is told of", func() bool { return s.dir.Status().State == "unkept" })
	s.Run(t)
	if n := len(s.lines()); n != 65 {
		t.Errorf("a HAProxy that has just started has %d hosts, want 65", n)
	}
	s.wait("the map is kept again", func() bool { return s.dir.Status().State == "serving" })
}

// What another hand does to the map is put right.
func TestMend(t *testing.T) {
	t.Parallel()
	_, pods, lines := hosts(20)
	s := newSite(t, lines, nil)
	s.run()
	for _, command := range []string{
		"clear map FILE", "add map FILE other.example.org pod0", "del map FILE host1.example.org", "add map FILE host2.example.org pod0",
	} {
		s.say(strings.ReplaceAll(command, "FILE", s.cfg.Map))
		s.wait("the map is mended after "+command, func() bool {
			text := s.say("show map " + s.cfg.Map)
			return strings.Count(text, "example.org") == len(pods) && cmp.Equal(pods, s.lines())
		})
	}
	// A change that leaves the number of lines alone is found by who misses
	// for it, or by the look that is taken each minute.
	s.say("del map " + s.cfg.Map + " host3.example.org")
	s.say("add map " + s.cfg.Map + " other.example.org pod0")
	time.Sleep(settling)
	s.wait("a known host that misses has the map compared", func() bool {
		if _, text := s.get("host3.example.org"); !strings.HasPrefix(text, pods["host3.example.org"]+" ") {
			t.Fatalf("host3: %s", text)
		}
		return cmp.Equal(pods, s.lines())
	})
	if n := s.book.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// lb7d killed: known hosts do not notice, others get the backup's answer at
// once, and a new lb7d takes over what there is.
func TestKilled(t *testing.T) {
	names, pods, lines := hosts(50)
	s := newSite(t, lines, nil)
	s.book.set("new.example.org", "pod2")
	s.book.set("late.example.org", "pod2")
	kill := s.spawn()
	if status, text := s.get("new.example.org"); status != 200 || !strings.HasPrefix(text, "pod2 ") {
		t.Errorf("a new host: %d %s", status, text)
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.lines()) != 51; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d lines", len(s.lines()))
		}
	}
	names, pods["new.example.org"] = append(names, "new.example.org"), "pod2"
	l := (&load{at: s.http, hosts: names, pods: pods, clients: 4, pause: time.Millisecond}).start()
	time.Sleep(300 * time.Millisecond)
	kill()
	for range 5 {
		if status, text := s.get("late.example.org"); status != 503 || !strings.HasPrefix(text, "This host cannot be found at the moment") {
			t.Errorf("a new host with lb7d away: %d %s, want the backup's answer", status, text)
		}
	}
	calls := s.book.calls.Load()
	s.run()
	if status, text := s.get("late.example.org"); status != 200 || !strings.HasPrefix(text, "pod2 ") {
		t.Errorf("with the next lb7d: %d %s", status, text)
	}
	l.end(t, "through a kill and a start of lb7d")
	if n := s.book.calls.Load() - calls; n != 1 {
		t.Errorf("%d calls after the start, want 1", n)
	}
	s.wait("the map has all", func() bool { return len(s.lines()) == 52 })
}

// The least recently used go, by what HAProxy saw; a flood of hosts that do not
// exist costs known ones nothing and the directory little.
func TestFullMap(t *testing.T) {
	s := newSite(t, "", func(c *Config) { c.MaxEntries, c.CallRate = 20, 50 })
	names, pods, _ := hosts(60)
	for h, p := range pods {
		s.book.set(h, p)
	}
	s.run()
	for _, h := range names[:20] {
		s.get(h)
	}
	s.wait("the map is full", func() bool { return len(s.lines()) == 20 })
	// Five are used: by hits, which lb7d does not see.
	used := names[:5]
	l := (&load{at: s.http, hosts: used, pods: pods, clients: 2, pause: time.Millisecond}).start()
	s.wait("HAProxy has noted them", func() bool { return strings.Count(s.say("show table used_hosts"), "key=") == 5 })
	d := s.dir
	d.mu.Lock()
	d.usage.readAt = time.Time{} // as if the last look were long ago
	d.mu.Unlock()
	for _, h := range names[20:35] {
		if status, text := s.get(h); status != 200 || !strings.HasPrefix(text, pods[h]+" ") {
			t.Errorf("%s: %d %s", h, status, text)
		}
	}
	// The map follows a moment later than the directory decides.
	s.wait("there was made room", func() bool {
		lines := s.lines()
		for _, h := range names[20:35] {
			if lines[h] == "" {
				return false
			}
		}
		return d.Status().Counters.Evicted >= 15 && len(lines) == 20
	})
	got := s.lines()
	for _, h := range used {
		if got[h] != pods[h] {
			t.Errorf("%s was used all the time, and is gone", h)
		}
	}

	calls, begun := s.book.calls.Load(), time.Now()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 100 {
				if _, _, err := fetch(s.http, fmt.Sprintf("no%d-%d.example.org", i, n)); err != nil {
					t.Errorf("an unknown host: %v", err)
				}
			}
		})
	}
	wg.Wait()
	l.end(t, "while hosts come and go and unknown ones flood in")
	if n, most := s.book.calls.Load()-calls, 50*(2+int64(time.Since(begun)/time.Second)); n > most {
		t.Errorf("%d calls in %s, want at most %d at 50 a second", n, time.Since(begun), most)
	}
	if diff := cmp.Diff(got, s.lines()); diff != "" {
		t.Errorf("the flood changed the map (-before +after):\n%s", diff)
	}
}

// A host that nobody uses any more is let go at the end of its time, one that
// is used is asked for again.
func TestUnusedExpire(t *testing.T) {
	t.Parallel()
	s := newSite(t, "", func(c *Config) { c.TTL = 8 * time.Second })
	names, pods, _ := hosts(6)
	for h, p := range pods {
		s.book.set(h, p)
	}
	s.run()
	for _, h := range names {
		s.get(h)
	}
	l := (&load{at: s.http, hosts: names[:2], pods: pods, clients: 2, pause: time.Millisecond}).start()
	s.wait("unused ones are gone", func() bool { return len(s.lines()) == 2 })
	s.wait("used ones were asked for again", func() bool { return s.dir.Status().Counters.Refreshes >= 2 })
	l.end(t, "meanwhile")
	if n := s.dir.Status().Counters.Expired; n != 4 {
		t.Errorf("%d were let go, want 4", n)
	}
}

// An answer of lb7d's own to the health check.
func TestCheck(t *testing.T) {
	s := newSite(t, "", nil)
	s.run()
	req, _ := http.NewRequest(http.MethodGet, "http://"+s.cfg.Listen+"/", nil)
	req.Host = CheckHost
	resp, err := lone.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(text) != "ok\n" {
		t.Errorf("%s %s", resp.Status, text)
	}
	if n := s.dir.Status().Counters.Misses; n != 0 {
		t.Errorf("checks count as %d misses", n)
	}
}
