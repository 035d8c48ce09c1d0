package directory

import (
	"sync"
	"testing"
	"time"
)

// What the bench measures with 100,000 hosts, in little and with room for a
// busy machine: a Lua action asks for each request, lb7d for none; its hits are
// about as fast as those of a map that nobody keeps; unknown hosts in numbers
// do not slow them down.
func TestAgainstLua(t *testing.T) {
	names, pods, lines := hosts(20_000)
	s, lua := newRace(t, lines)
	for h, p := range pods {
		s.book.set(h, p)
	}
	s.run()
	var luaN, luaCalls int64
	// The best of several rounds each: what else the machine does only slows
	// one down.
	var l, h, o float64
	for round := 0; round < 3 || round < 12 && (o < 5*l || o < 0.8*h); round++ {
		before := s.book.calls.Load()
		n, rate := saturate(t, lua, names, 300*time.Millisecond)
		luaN, luaCalls = luaN+n, luaCalls+s.book.calls.Load()-before
		l = max(l, rate)
		_, rate = saturate(t, s.plain, names, 300*time.Millisecond)
		h = max(h, rate)
		before = s.book.calls.Load()
		_, rate = saturate(t, s.http, names, 300*time.Millisecond)
		o = max(o, rate)
		if calls := s.book.calls.Load() - before; calls != 0 {
			t.Errorf("%d calls with every host in the map", calls)
		}
	}
	if luaCalls < luaN || luaN == 0 {
		t.Errorf("the Lua action made %d calls for %d requests: it is not what it stands for", luaCalls, luaN)
	}
	t.Logf("requests/s: Lua %.0f, by hand %.0f, lb7d %.0f", l, h, o)
	if o < 5*l || o < 0.8*h {
		t.Errorf("requests/s: Lua %.0f, by hand %.0f, lb7d %.0f; want at least 5 times the first and 0.8 of the second", l, h, o)
	}

	var wg sync.WaitGroup
	steady := func() *load {
		return (&load{at: s.http, hosts: names[:500], pods: pods, clients: 4, pause: 5 * time.Millisecond}).start()
	}
	quiet := steady()
	time.Sleep(1500 * time.Millisecond)
	quiet.end(t, "in peace")
	busy := steady()
	wg.Go(func() { flood(s.http, 300, 1500*time.Millisecond) })
	wg.Wait()
	busy.end(t, "in a flood")
	if q, f := quiet.quantile(0.99), busy.quantile(0.99); f > 5*q+50*time.Millisecond {
		t.Errorf("p99 of known hosts: %s in peace, %s in a flood", q, f)
	}
	if n := len(s.lines()); n != len(names) {
		t.Errorf("the map has %d lines after the flood, want %d", n, len(names))
	}
	if s.dir.Status().Counters.Unknown == 0 {
		t.Error("the flood did not arrive")
	}
}
