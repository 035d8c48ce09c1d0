package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lb4d/l7/slots"
)

var policy = slots.Policy{Slots: 8, MaxShrink: 100, Weight: 10}

// assigning is a change that assigns these servers.
func assigning(names ...string) func(slots.Record) (slots.Record, bool) {
	var list []slots.Server
	for _, n := range names {
		list = append(list, server(n))
	}
	return func(r slots.Record) (slots.Record, bool) {
		next, c := slots.Assign(r, list, time.Now(), policy)
		return next, c.Changed
	}
}

// server has an address that goes with its name.
func server(name string) slots.Server {
	h := 0
	for _, b := range []byte(name) {
		h = h*31 + int(b)
	}
	return slots.Server{ID: name, Addr: netip.AddrFrom4([4]byte{10, byte(h >> 16), byte(h >> 8), byte(h)}), Port: 80, Weight: slots.NoWeight}
}

// who is the record in short: "1=a 2=b".
func who(r slots.Record) string {
	var parts []string
	for _, s := range r.Slots {
		if s.State != slots.Free {
			parts = append(parts, fmt.Sprintf("%d=%s", s.Number, s.ID))
		}
	}
	return strings.Join(parts, " ")
}

// await reads a watch until the record says what it should, and the update is
// in order or not as wanted.
func await(t *testing.T, updates <-chan Update, within time.Duration, want string, failing bool) Update {
	t.Helper()
	end := time.After(within)
	var last Update
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				t.Fatal("the watch has ended")
			}
			last = u
			if who(u.Record) == want && (u.Err != nil) == failing {
				return u
			}
		case <-end:
			t.Fatalf("the last update is %q (%v), want %q, failing %v, within %v", who(last.Record), last.Err, want, failing, within)
		}
	}
}

func TestStore(t *testing.T) {
	everyKind(t, func(t *testing.T, o outage) {
		ctx := t.Context()
		a, b := o.open(t), o.open(t)
		updates := b.Watch(ctx)
		if u := await(t, updates, 10*time.Second, "", false); u.Record.Version != 0 {
			t.Errorf("an empty store has %+v", u.Record)
		}

		first, err := Change(ctx, a, slots.Record{}, assigning("a", "b"))
		if err != nil || who(first) != "1=a 2=b" || first.Version == 0 {
			t.Fatalf("the first write: %+v, %v", first, err)
		}
		if u := await(t, updates, 10*time.Second, "1=a 2=b", false); u.Record.Version != first.Version || !u.Record.Equal(first) {
			t.Errorf("seen %+v\nwritten %+v", u.Record, first)
		}
		if same, err := Change(ctx, a, first, assigning("a", "b")); err != nil || same.Version != first.Version {
			t.Errorf("writing nothing: version %d, %v", same.Version, err)
		}

		// On top of a record that is out of date nothing is written.
		second, err := Change(ctx, a, first, assigning("a", "b", "c"))
		if err != nil || second.Version <= first.Version {
			t.Fatalf("the second write: %+v, %v", second, err)
		}
		stale, _ := assigning("x")(first)
		got, err := b.CompareAndSwap(ctx, stale)
		if !errors.Is(err, ErrConflict) || got.Version != second.Version || !got.Equal(second) {
			t.Errorf("a late write: %+v, %v", got, err)
		}
		// Whoever comes late with Change adds to what there is.
		if r, err := Change(ctx, b, first, assigning("a", "b", "c", "d")); err != nil || who(r) != "1=a 2=b 3=c 4=d" {
			t.Errorf("a late change: %s, %v", who(r), err)
		}
		await(t, updates, 10*time.Second, "1=a 2=b 3=c 4=d", false)

		// A watch that begins later starts with what there is.
		await(t, o.open(t).Watch(ctx), 10*time.Second, "1=a 2=b 3=c 4=d", false)

		watching, stop := context.WithCancel(ctx)
		ends := a.Watch(watching)
		stop()
		for range ends { // until it is closed
		}
	})
}

// Two writers at once, each with servers that come and go, a thousand writes:
// in the order of their versions, the records are one history, in which no
// slot is given while another has it and nobody moves.
func TestRace(t *testing.T) {
	writes := 1000
	if testing.Short() {
		writes = 100
	}
	everyKind(t, func(t *testing.T, o outage) {
		var mu sync.Mutex
		history := map[uint64]slots.Record{}
		var racers sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			s := o.open(t)
			racers.Go(func() {
				var known slots.Record
				for i := range writes / 2 {
					r, err := Change(t.Context(), s, known, func(r slots.Record) (slots.Record, bool) {
						// Its own oldest one goes where it has three, and a new
						// one comes.
						var list []slots.Server
						var mine []string
						for _, s := range r.Slots {
							if s.State != slots.Free {
								list = append(list, server(s.ID))
								if strings.HasPrefix(s.ID, name) {
									mine = append(mine, s.ID)
								}
							}
						}
						slices.Sort(mine)
						if len(mine) == 3 {
							list = slices.DeleteFunc(list, func(s slots.Server) bool { return s.ID == mine[0] })
						}
						list = append(list, server(fmt.Sprintf("%s%04d", name, i)))
						next, c := slots.Assign(r, list, time.Now(), policy)
						return next, c.Changed
					})
					if err != nil {
						t.Errorf("writer %s: %v", name, err)
						return
					}
					known = r
					// Whoever has just written knows the newest version and
					// would win again; so the other gets its chance.
					time.Sleep(rand.N(4 * time.Millisecond))
					mu.Lock()
					if _, twice := history[r.Version]; twice {
						t.Errorf("version %d was written twice", r.Version)
					}
					history[r.Version] = r
					mu.Unlock()
				}
			})
		}
		racers.Wait()
		if len(history) != writes {
			t.Errorf("%d writes, want %d", len(history), writes)
		}
		turns, before := 0, ""
		var versions []uint64
		for v := range history {
			versions = append(versions, v)
		}
		slices.Sort(versions)
		had := map[string]int{} // every server's one slot
		last := map[int]string{}
		for _, v := range versions {
			r := history[v]
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Slots {
				// Whose server is new was the writer.
				if had[s.ID] == 0 && s.ID != "" && s.ID[:1] != before {
					turns, before = turns+1, s.ID[:1]
				}
			}
			alive := map[string]bool{}
			for _, s := range r.Slots {
				alive[s.ID] = true
			}
			for _, s := range r.Slots {
				if s.State == slots.Free {
					continue
				}
				if n, ok := had[s.ID]; ok && n != s.Number {
					t.Fatalf("version %d: %s moved from slot %d to %d", v, s.ID, n, s.Number)
				}
				if old := last[s.Number]; old != "" && old != s.ID && alive[old] {
					t.Fatalf("version %d: slot %d of %s has gone to %s", v, s.Number, old, s.ID)
				}
				had[s.ID], last[s.Number] = s.Number, s.ID
			}
		}
		t.Logf("%d writes, in %d turns", len(history), turns)
		if len(had) != writes {
			t.Errorf("%d servers had slots, want %d", len(had), writes)
		}
	})
}

// While the store is away, readers keep the last record and say that they are
// not sure; when it is back they converge, and writing goes on.
func TestAway(t *testing.T) {
	everyKind(t, func(t *testing.T, o outage) {
		ctx := t.Context()
		a, b := o.open(t), o.open(t)
		seenA, seenB := a.Watch(ctx), b.Watch(ctx)
		r, err := Change(ctx, a, slots.Record{}, assigning("a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		await(t, seenA, 10*time.Second, "1=a 2=b", false)
		await(t, seenB, 10*time.Second, "1=a 2=b", false)

		o.away(t)
		await(t, seenA, 30*time.Second, "1=a 2=b", true)
		await(t, seenB, 30*time.Second, "1=a 2=b", true)
		if _, err := Change(ctx, a, r, assigning("a", "b", "c")); err == nil {
			t.Error("a write to a store that is away: no error")
		}

		o.back(t)
		await(t, seenA, 30*time.Second, "1=a 2=b", false)
		if _, err := Change(ctx, b, r, assigning("a", "b", "c")); err != nil {
			t.Errorf("writing after it came back: %v", err)
		}
		await(t, seenA, 30*time.Second, "1=a 2=b 3=c", false)
		await(t, seenB, 30*time.Second, "1=a 2=b 3=c", false)
	})
}

func TestLease(t *testing.T) {
	everyKind(t, func(t *testing.T, o outage) {
		ctx := t.Context()
		const ttl = 2 * time.Second
		a, b := o.open(t), o.open(t)
		take := func(s Store, holder string) Tenure {
			t.Helper()
			for deadline := time.Now().Add(20 * time.Second); ; {
				tenure, err := s.Lease(ctx, holder, ttl)
				if err == nil {
					return tenure
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %v", holder, err)
				}
			}
		}
		if got := take(a, "host-a"); !got.Held || got.Holder != "host-a" || time.Until(got.Until) <= 0 {
			t.Errorf("host-a asks first: %+v", got)
		}
		if got := take(b, "host-b"); got.Held || got.Holder != "host-a" {
			t.Errorf("host-b asks second: %+v", got)
		}
		if got := take(a, "host-a"); !got.Held {
			t.Errorf("host-a renews: %+v", got)
		}

		// Given up: free at once.
		if _, err := a.Lease(ctx, "host-a", 0); err != nil {
			t.Fatal(err)
		}
		if got := take(b, "host-b"); !got.Held {
			t.Errorf("host-b after host-a gave up: %+v", got)
		}
		if got := take(a, "host-a"); got.Held || got.Holder != "host-b" {
			t.Errorf("host-a after that: %+v", got)
		}

		// Not renewed: it falls to the other in seconds. For a file it takes
		// the end of the process, whose locks the kernel drops.
		if f, ok := b.(*File); ok {
			f.lease.Close()
		}
		start := time.Now()
		for !take(a, "host-a").Held {
			if time.Since(start) > 15*time.Second {
				t.Fatal("host-a does not get the lease that host-b no longer renews")
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("taken over after %v", time.Since(start).Round(time.Millisecond))
		if f, ok := b.(*File); ok {
			f.lease = nil
		}
		if got := take(b, "host-b"); got.Held {
			t.Errorf("host-b still has it: %+v", got)
		}
	})
}
