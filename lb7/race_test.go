package lb7

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/config"
	"lb4d/discovery"
	"lb4d/internal/storetest"
	"lb4d/l7/slots"
	"lb4d/l7/store"
)

// witness writes down what becomes of each write to a store.
type witness struct {
	store.Store
	h *history
}

// history is all writes of some keepers, by the version that each was on top of.
type history struct {
	mu        sync.Mutex
	next      map[uint64]slots.Record
	twice     []uint64
	conflicts int
}

func (w witness) CompareAndSwap(ctx context.Context, r slots.Record) (slots.Record, error) {
	written, err := w.Store.CompareAndSwap(ctx, r)
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	switch {
	case errors.Is(err, store.ErrConflict):
		w.h.conflicts++
	case err == nil:
		if _, had := w.h.next[r.Version]; had {
			w.h.twice = append(w.h.twice, r.Version)
		}
		w.h.next[r.Version] = written
	}
	return written, err
}

func (h *history) writes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.next)
}

// pushed is a source whose lists are pushed.
type pushed struct{ lists chan []discovery.Entry }

func (p pushed) String() string { return "pushed" }

func (p pushed) Run(ctx context.Context, tell func([]discovery.Entry, error)) {
	for {
		select {
		case l := <-p.lists:
			tell(l, nil)
		case <-ctx.Done():
			return
		}
	}
}

// racingList is the nth list of the race: some servers are in every one, the
// others in three in a row.
func racingList(n int64) []discovery.Entry {
	var list []discovery.Entry
	add := func(name string, i int64) {
		list = append(list, discovery.Entry{Name: name, Target: fmt.Sprintf("10.%d.%d.%d:80", i>>16&255, i>>8&255, i&255)})
	}
	for i := range int64(4) {
		add(fmt.Sprintf("stays-%d", i), 1<<16+i)
	}
	for i := n; i < n+3; i++ {
		add(fmt.Sprintf("passes-%d", i), i)
	}
	return list
}

// TestKeepersRace has two keepers of one record, as two lb7ds have them, both of
// them sure that they are the one that gives the slots, which the lease can only
// make rare. A thousand writes later each was on top of exactly one other, no
// server ever had two slots and nobody who stayed has moved.
func TestKeepersRace(t *testing.T) {
	writes := 1000
	if testing.Short() {
		writes = 200
	}
	for name, cfg := range map[string]func(t *testing.T) config.Store{
		"etcd": func(t *testing.T) config.Store {
			return config.Store{Kind: config.StoreEtcd, Endpoints: []string{storetest.Etcd(t).URL}, Prefix: "/lb7d"}
		},
		"dynamodb": func(t *testing.T) config.Store {
			t.Setenv("AWS_ACCESS_KEY_ID", "test")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
			s, _ := storetest.Dynalite(t, "slots")
			return config.Store{Kind: config.StoreDynamoDB, Region: storetest.Region, Endpoint: s.URL, Poll: 100 * time.Millisecond, HSDOPort: 80}
		},
	} {
		t.Run(name, func(t *testing.T) {
			race(t, cfg(t), writes)
		})
	}
}

func race(t *testing.T, kind config.Store, writes int) {
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	h := &history{next: map[uint64]slots.Record{}}
	b := config.Backend{Name: "servers", Slots: 8, Weight: 1, MaxShrink: 100, Table: "slots"}
	var round atomic.Int64
	var racers sync.WaitGroup
	for n := range 2 {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		all, err := openStores(ctx, &config.LB7{StateDir: dir, Store: kind})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(all.close)
		s, words := all.of(b)
		source := pushed{make(chan []discovery.Entry)}
		log := &safeBuffer{}
		k := startKeeper(ctx, keeperOptions{
			log: slog.New(slog.NewTextHandler(log, nil)), name: b.Name, store: witness{s, h}, kind: words,
			holder: fmt.Sprint("host-", n), lease: time.Minute, stateDir: dir,
			policy: policyOf(b), source: source, told: func() {}, changed: func() {},
		})
		t.Cleanup(func() {
			k.close()
			if t.Failed() {
				t.Logf("keeper %d says:\n%.4000s", n, log)
			}
		})
		// The lease has been decided once, for one of them; from now on both
		// have it, as they would for a moment after a host stood still.
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			k.mu.Lock()
			decided := k.heard && (k.tenure.Held || k.tenure.Holder != "")
			k.mu.Unlock()
			if decided {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("keeper %d hears nothing", n)
			}
		}
		k.elected(store.Tenure{Held: true, Holder: k.holder, Until: time.Now().Add(time.Hour)}, nil)
		racers.Go(func() {
			for h.writes() < writes && ctx.Err() == nil {
				i := round.Load()
				if n == 0 {
					i = round.Add(1)
				}
				select {
				case source.lists <- racingList(i):
				case <-ctx.Done():
				}
				time.Sleep(rand.N(6 * time.Millisecond))
			}
		})
	}
	racers.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%d writes in two minutes", h.writes())
	}
	h.check(t, writes)
}

// check follows the writes from the first to the last.
func (h *history) check(t *testing.T, writes int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.twice) > 0 {
		t.Errorf("two writes each on top of versions %d", h.twice)
	}
	seen := 0
	stays := map[string]int{}
	had := map[int]string{}
	for r, ok := h.next[0]; ok; r, ok = h.next[r.Version] {
		seen++
		if err := r.Check(); err != nil {
			t.Fatalf("version %d: %v", r.Version, err)
		}
		where := map[string]int{}
		for _, s := range r.Slots {
			if s.State == slots.Free {
				continue
			}
			if other, twice := where[s.ID]; twice {
				t.Fatalf("version %d: %s has slots %d and %d", r.Version, s.ID, other, s.Number)
			}
			where[s.ID] = s.Number
		}
		for _, s := range r.Slots {
			if before := had[s.Number]; before != "" && before != s.ID && where[before] != 0 {
				t.Fatalf("version %d: slot %d of %s has gone to %s", r.Version, s.Number, before, s.ID)
			}
			had[s.Number] = s.ID
		}
		for i := range 4 {
			name := fmt.Sprintf("stays-%d", i)
			if was := stays[name]; where[name] == 0 || was != 0 && was != where[name] {
				t.Fatalf("version %d: %s had slot %d, and has %d", r.Version, name, was, where[name])
			}
			stays[name] = where[name]
		}
	}
	if seen != len(h.next) || seen < writes {
		t.Errorf("%d writes, %d of them in a row, want %d", len(h.next), seen, writes)
	}
	t.Logf("%d writes, %d refused because the other one was first", seen, h.conflicts)
	if h.conflicts == 0 {
		t.Error("they never met: that was no race")
	}
}
