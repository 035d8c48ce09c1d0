package directory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// An answer is asked for again before it is old, and one that does not come is
// asked for later.
func TestDue(t *testing.T) {
	tab := newTable(time.Hour)
	for i := range 1000 {
		tab.put(fmt.Sprintf("h%d", i), "pod0", noon, false)
	}
	count := func(at time.Duration) int { return len(tab.takeDue(10_000, noon.Add(at), time.Minute)) }
	if n := count(44 * time.Minute); n != 0 {
		t.Errorf("%d due after 44 of 60 minutes", n)
	}
	half := count(50 * time.Minute)
	if half < 200 || half > 800 {
		t.Errorf("%d of 1000 due in the middle of the span, want about 550", half)
	}
	if n := count(50*time.Minute + time.Second); n > 20 {
		t.Errorf("%d asked for again at once", n)
	}
	if n := count(55 * time.Minute); n < 990 {
		t.Errorf("%d due at the end, with those that had no answer; want all", n)
	}
	if !tab.put("h1", "pod1", noon.Add(time.Hour), false) || tab.put("h1", "pod1", noon.Add(time.Hour), false) {
		t.Error("a change counts as one, and no change as one too")
	}
	if stale, oldest := tab.ages(noon.Add(61 * time.Minute)); stale != 999 || !oldest.Equal(noon) {
		t.Errorf("%d stale, the oldest of %s", stale, oldest)
	}
	// What was found at the start comes due over half of its time.
	tab = newTable(time.Hour)
	for i := range 1000 {
		tab.adopt(fmt.Sprintf("h%d", i), "pod0", noon)
	}
	if n := count(29 * time.Minute); n != 0 {
		t.Errorf("%d of those found due before half of their time", n)
	}
	if n := count(42 * time.Minute); n < 300 || n > 700 {
		t.Errorf("%d of 1000 due in the middle of the span, want about 500", n)
	}
}

// The least recently used go, whether a use was seen at once or is told of
// later.
func TestEvict(t *testing.T) {
	tab := newTable(time.Hour)
	for i := range 6 {
		tab.put(fmt.Sprintf("h%d", i), "pod0", noon.Add(time.Duration(i)*time.Minute), false)
	}
	tab.use(tab.entries["h0"], noon.Add(time.Hour))
	all := tab.noteUses(map[string]time.Time{"h1": noon.Add(30 * time.Minute), "h5": noon, "gone": noon.Add(2 * time.Hour)})
	tab.remove("h4") // while nobody held the lock
	tab.put("h6", "pod0", noon.Add(2*time.Hour), false)
	sortUses(all)
	tab.reorder(all)
	if diff := cmp.Diff([]string{"h2", "h3", "h5", "h1"}, tab.evict(4)); diff != "" {
		t.Errorf("evicted (-want +got):\n%s", diff)
	}
	if tab.entries["h0"] == nil || tab.entries["h6"] == nil || len(tab.entries) != 2 {
		t.Errorf("left: %v", tab.pairs())
	}
}

// Whatever happens to a table, its three views hold the same hosts.
func TestTableAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab, now := newTable(time.Minute), noon
	for range 20_000 {
		now = now.Add(time.Second / 10)
		host := fmt.Sprintf("h%d", r.IntN(200))
		switch r.IntN(8) {
		case 0, 1, 2:
			tab.put(host, fmt.Sprintf("pod%d", r.IntN(3)), now, false)
		case 3:
			tab.remove(host)
		case 4:
			tab.evict(r.IntN(3))
		case 5:
			for _, e := range tab.takeDue(r.IntN(5), now, time.Second) {
				if e.due.Before(now) {
					t.Fatalf("%s is due at %s again, at %s", e.host, e.due, now)
				}
			}
		case 6:
			if e := tab.entries[host]; e != nil {
				tab.use(e, now)
			}
		case 7:
			tab.adopt(host, "pod0", now)
		}
		if len(tab.entries) != tab.order.Len() || len(tab.entries) != len(tab.queue) {
			t.Fatalf("%d hosts, %d in order, %d in the queue", len(tab.entries), tab.order.Len(), len(tab.queue))
		}
	}
	for i, e := range tab.queue {
		if e.index != i || tab.entries[e.host] != e || i > 0 && e.due.Before(tab.queue[(i-1)/2].due) {
			t.Errorf("place %d of the queue is wrong", i)
		}
	}
}

func TestMemo(t *testing.T) {
	m := newMemo(3)
	why := errors.New("no")
	for i := range 5 {
		m.put(fmt.Sprintf("h%d", i), why, noon.Add(time.Duration(i)*time.Minute))
	}
	m.put("h2", why, noon.Add(time.Hour))
	var known []string
	for i := range 5 {
		if m.get(fmt.Sprintf("h%d", i), noon.Add(3*time.Minute)) != nil {
			known = append(known, fmt.Sprintf("h%d", i))
		}
	}
	// h0 and h1 made room, h3's time is over.
	if diff := cmp.Diff([]string{"h2", "h4"}, known); diff != "" || len(m.hosts) != m.order.Len() {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A directory that has lost its data does not empty the map: ten hosts go, or a
// tenth, in each span.
func TestBudget(t *testing.T) {
	b := budget{every: time.Minute}
	gone := func(at time.Time, total int) (n int) {
		for range total {
			if b.take(at, total) {
				n++
			}
		}
		return n
	}
	if n := gone(noon, 8); n != 8 || b.text(noon) != "" {
		t.Errorf("%d of 8, %q", n, b.text(noon))
	}
	if n := gone(noon.Add(time.Minute), 1000); n != 100 || b.text(noon.Add(time.Minute)) == "" || b.text(noon.Add(2*time.Minute)) != "" {
		t.Errorf("%d of 1000, %q", n, b.text(noon.Add(time.Minute)))
	}
	if n := gone(noon.Add(90*time.Second), 900); n != 0 {
		t.Errorf("%d more in the same span", n)
	}
	if n := gone(noon.Add(2*time.Minute), 900); n != 90 {
		t.Errorf("%d in the next span", n)
	}
}

func TestDiff(t *testing.T) {
	marked := map[string]struct{}{}
	for _, h := range []string{"same", "new", "moved", "gone", "never"} {
		marked[h] = struct{}{}
	}
	tab := newTable(time.Hour)
	for h, b := range map[string]string{"same": "pod0", "new": "pod1", "moved": "pod2", "unmarked": "pod0"} {
		tab.put(h, b, noon, false)
	}
	got := diff(marked, map[string]string{"same": "pod0", "moved": "pod1", "gone": "pod0", "other": "pod0"}, tab.entries)
	if !slices.Equal(got.del, []string{"gone"}) || !slices.Equal(got.set, []pair{{"moved", "pod2"}}) || !slices.Equal(got.add, []pair{{"new", "pod1"}}) {
		t.Errorf("got %+v", got)
	}
}

// The directory counts as away after three failures in a row, rests longer and
// longer between attempts, and forgets all that with the first answer.
func TestAway(t *testing.T) {
	d := newForTest(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	why := errors.New("why")
	now, rests := noon, []time.Duration{}
	for i := range 9 {
		d.unanswered(now, why)
		if d.service.away() != (i >= 2) {
			t.Errorf("after %d failures: away is %t", i+1, d.service.away())
		}
		if i >= 2 {
			rests = append(rests, d.service.until.Sub(now))
			d.unanswered(now, why) // others of the same moment make it no worse
			now = d.service.until
		}
	}
	if diff := cmp.Diff([]time.Duration{1e9, 2e9, 4e9, 8e9, 15e9, 15e9, 15e9}, rests); diff != "" {
		t.Errorf("rests (-want +got):\n%s", diff)
	}
	d.answered(now)
	if d.service.away() || d.service.resting(now) {
		t.Errorf("after an answer: %+v", d.service)
	}
}
