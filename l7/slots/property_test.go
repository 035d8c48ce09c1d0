package slots

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A thousand random histories, each step with its promises: no server in two
// slots, none moved, no slot given before it has rested, the lowest one first,
// nobody left out while there is room, nobody dropped without being gone.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		p := Policy{
			Slots:     1 + rng.IntN(12),
			Rest:      time.Duration(rng.IntN(3)) * 20 * time.Second,
			MaxShrink: rng.IntN(101),
			Persist:   time.Duration(rng.IntN(3)) * 30 * time.Second,
			Weight:    1 + rng.IntN(256),
		}
		if rng.IntN(2) == 0 {
			p.Ramp = Ramp{From: rng.IntN(5), Step: 1 + rng.IntN(40), Every: time.Duration(1+rng.IntN(30)) * time.Second}
		}
		now := epoch
		var r Record
		alive := map[string]Server{}
		next := 0
		for stepNo := range 40 {
			now = now.Add(time.Duration(rng.IntN(40_000)) * time.Millisecond)
			switch rng.IntN(4) {
			case 0:
				before := r
				var c Changes
				r, c = Advance(r, now, p)
				stay(t, before, r, nil)
				for _, e := range c.Events {
					if p.Ramp.Every == 0 {
						t.Fatalf("seed %d, step %d: without a ramp, %s", seed, stepNo, e)
					}
				}
				continue
			case 1:
				var ids []string
				for id := range alive {
					ids = append(ids, id)
				}
				before := r
				r, _ = Pass(r, passing(r, ids), now)
				stay(t, before, r, nil)
				continue
			case 2:
				r, _ = Confirm(r)
			}
			// The servers live their own lives; some come back under their
			// names and at others' addresses.
			for range rng.IntN(6) {
				switch id := fmt.Sprint("i", rng.IntN(next+1)); rng.IntN(6) {
				case 0, 1:
					delete(alive, id)
				case 2:
					clear(alive)
				default:
					next += rng.IntN(2)
					alive[id] = Server{
						ID: id, Addr: netip.MustParseAddr("192.0.2.1"), Port: 1 + rng.IntN(40),
						Weight: rng.IntN(258) - 1, Exclude: rng.IntN(5) == 0,
					}
				}
			}
			var list []Server
			for _, s := range alive {
				list = append(list, s)
			}
			before := r
			var c Changes
			r, c = Assign(before, list, now, p)
			where := fmt.Sprintf("seed %d, step %d: list %v\nbefore %s\nafter  %s", seed, stepNo, list, show(before, Changes{}, epoch), show(r, c, epoch))
			if err := r.Check(); err != nil {
				t.Fatalf("%s\n%v", where, err)
			}
			good, _ := sift(list, before)
			stay(t, before, r, good)
			promises(t, where, before, r, c, good, alive, now, p)
			if again, c := Assign(r, list, now, p); c.Changed || !again.Equal(r) {
				t.Fatalf("%s\nagain  %s", where, show(again, c, epoch))
			}
			r = throughStore(t, r)
		}
	}
}

// slotsOf says who is where.
func slotsOf(r Record) map[string]int {
	m := map[string]int{}
	for _, s := range r.Slots {
		if s.State != Free {
			m[s.ID] = s.Number
		}
	}
	return m
}

// stay checks that nobody has moved; without a list, that nobody has gone.
func stay(t *testing.T, before, after Record, good map[string]listed) {
	t.Helper()
	was, is := slotsOf(before), slotsOf(after)
	for id, n := range was {
		_, listed := good[id]
		if is[id] != n && (is[id] != 0 || good == nil || listed) {
			t.Fatalf("server %s was in slot %d and is in %d", id, n, is[id])
		}
	}
}

func promises(t *testing.T, where string, before, after Record, c Changes, good map[string]listed, alive map[string]Server, now time.Time, p Policy) {
	t.Helper()
	was, is := slotsOf(before), slotsOf(after)
	for id := range good {
		if is[id] == 0 && !slices.Contains(c.Overflow, id) && !slices.Contains(c.Waiting, id) {
			t.Fatalf("%s\n%s has no slot and nobody says so", where, id)
		}
	}
	rested := func(s Slot) bool { return s.FreedAt.IsZero() || !s.FreedAt.Add(p.Rest).After(now) }
	lowest := 0 // the lowest slot that was left empty though it could be given
	for _, s := range after.Slots {
		if s.State == Free && s.Number <= p.Slots && rested(s) {
			lowest = s.Number
			break
		}
	}
	if lowest != 0 && len(c.Overflow)+len(c.Waiting) > 0 {
		t.Fatalf("%s\nslot %d is empty", where, lowest)
	}
	for id, n := range is {
		if was[id] != 0 {
			continue
		}
		var old Slot
		if n <= len(before.Slots) {
			old = before.Slots[n-1]
		}
		switch {
		case old.State == Ready || old.State == Drain:
			renamed := old.Addr == after.Slots[n-1].Addr
			if _, still := good[old.ID]; (still || !renamed) && (p.Rest > 0 || still) {
				t.Fatalf("%s\n%s has slot %d of %s", where, id, n, old.ID)
			}
		case old.Last == id:
		case old.State == Free && !rested(old):
			t.Fatalf("%s\nslot %d had not rested", where, n)
		case lowest != 0 && lowest < n && after.Slots[lowest-1] == before.Slots[min(lowest, len(before.Slots))-1]:
			t.Fatalf("%s\nslot %d was lower than %d", where, lowest, n)
		}
	}
	for id, n := range was {
		// Who is gone leaves at once, or the list is held back.
		if _, named := alive[id]; !named && is[id] == n && after.Held == nil {
			t.Fatalf("%s\n%s is gone and has slot %d", where, id, n)
		}
	}
}
