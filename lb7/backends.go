package lb7

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/l7"
	"lb4d/l7/runtime"
)

// backendsPart keeps the back ends.
type backendsPart struct {
	log     *slog.Logger
	ctx     context.Context
	changed func()
	holder  string // of the leases, the same for all records

	mu      sync.Mutex // guards what follows
	cfg     *config.LB7
	stores  *stores
	keepers map[string]*keeper // by the record's name
	workers map[string]*worker // by the back end's name
	started time.Time
}

func newBackends(ctx context.Context, log *slog.Logger, changed func()) *backendsPart {
	return &backendsPart{log: log, ctx: ctx, changed: changed, holder: newHolder(), keepers: map[string]*keeper{}, workers: map[string]*worker{}}
}

// wakeAll has every worker look at HAProxy now.
func (p *backendsPart) wakeAll() { p.wakeOf("") }

// wakeOf has the workers look whose record it is; all of them where it is empty.
func (p *backendsPart) wakeOf(record string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if record == "" || w.keeper.name == record {
			w.poke()
		}
	}
}

// prepare implements part.
func (p *backendsPart) prepare(ctx context.Context, cfg *config.LB7) (change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	opened := p.stores
	if opened != nil && !reflect.DeepEqual(p.cfg.Store, cfg.Store) {
		return change{}, fmt.Errorf("store: cannot change in a running daemon; restart lb7d")
	}
	if opened == nil && len(cfg.Backends) > 0 {
		var err error
		if opened, err = openStores(ctx, cfg); err != nil {
			return change{}, err
		}
	}
	var client *runtime.Client
	if cfg.HAProxy != nil {
		var err error
		if client, err = runtime.New(cfg.HAProxy.Socket, runtime.Options{Process: cfg.HAProxy.Process, Timeout: cfg.HAProxy.Timeout}); err != nil {
			return change{}, err
		}
	}
	return change{
		commit: func() { p.commit(cfg, client, opened) },
		undo: func() {
			if opened != nil && p.stores == nil {
				opened.close()
			}
		},
	}, nil
}

// commit goes over to the new configuration. What is the same in it goes on
// undisturbed.
func (p *backendsPart) commit(cfg *config.LB7, client *runtime.Client, opened *stores) {
	p.mu.Lock()
	old := p.cfg
	p.cfg, p.stores, p.started = cfg, opened, time.Now()
	var endW []*worker
	var endK []*keeper
	for name, w := range p.workers {
		if !sameWork(old, cfg, name) {
			endW = append(endW, w)
			delete(p.workers, name)
		}
	}
	for name, k := range p.keepers {
		b, ok := cfg.Backend(name)
		was, _ := old.Backend(name)
		// A record in another table is another one.
		if !ok || b.SlotsOf != "" || b.Table != was.Table {
			endK = append(endK, k)
			delete(p.keepers, name)
		}
	}
	p.mu.Unlock()
	// Outside of the lock, since they may be waking one another.
	for _, w := range endW {
		w.close()
	}
	for _, k := range endK {
		k.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range cfg.Backends {
		if b.SlotsOf != "" {
			continue
		}
		if k := p.keepers[b.Name]; k != nil {
			k.reconfigure(policyOf(b), sourceOf(b.Source))
			continue
		}
		s, kind := opened.of(b)
		p.keepers[b.Name] = startKeeper(p.ctx, keeperOptions{
			log: p.log, name: b.Name, store: s, kind: kind,
			holder: p.holder, lease: cfg.Store.Lease, stateDir: cfg.StateDir,
			policy: policyOf(b), source: sourceOf(b.Source),
			told: func() { p.wakeOf(b.Name) }, changed: p.changed,
		})
	}
	for _, b := range cfg.Backends {
		if p.workers[b.Name] != nil {
			continue
		}
		owner, _ := cfg.Backend(b.Record())
		w := &worker{
			log: p.log.With("backend", b.Name), name: b.Name,
			filter: filterOf(b, cfg.Backends), keeper: p.keepers[b.Record()],
			applier: l7.NewApplier(client, b.Name, b.Prefix), changed: p.changed,
		}
		if i, ok := includeOf(b, owner.Slots); ok {
			w.include = &i
		}
		p.workers[b.Name] = startWorker(p.ctx, w)
	}
}

// sameWork tells whether the worker of a back end can go on as it is.
func sameWork(old, new *config.LB7, name string) bool {
	a, _ := old.Backend(name)
	b, ok := new.Backend(name)
	if !ok || !reflect.DeepEqual(old.HAProxy, new.HAProxy) || a.Record() != b.Record() || a.Prefix != b.Prefix ||
		!reflect.DeepEqual(a.Include, b.Include) || !reflect.DeepEqual(filterOf(a, old.Backends), filterOf(b, new.Backends)) {
		return false
	}
	ownerA, _ := old.Backend(a.Record())
	ownerB, _ := new.Backend(b.Record())
	return ownerA.Slots == ownerB.Slots && ownerA.Table == ownerB.Table
}

// newHolder names this process among those that want a lease. The host's name is
// for people. What no other process has is the random part: hosts that were
// cloned share their name and their paths, and a container's socket is at the
// same path in each. A process that was killed so leaves its lease to end by
// itself.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return host + "-" + strings.ToLower(rand.Text()[:8])
}

// keeper finds the keeper of the record that a back end has a share in.
func (p *backendsPart) keeper(backend string) (*keeper, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[backend]
	if !ok {
		return nil, false
	}
	return w.keeper, true
}

// report implements part.
func (p *backendsPart) report(st *control.LB7Status) (bool, time.Time) {
	p.mu.Lock()
	keepers := make([]*keeper, 0, len(p.keepers))
	for _, k := range p.keepers {
		keepers = append(keepers, k)
	}
	workers := make([]*worker, 0, len(p.workers))
	for _, w := range p.workers {
		workers = append(workers, w)
	}
	// A record that never comes must not hold up the start for good: the
	// others serve, and the status tells of it.
	late := time.Since(p.started) > startPatience
	p.mu.Unlock()
	slices.SortFunc(keepers, func(a, b *keeper) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(workers, func(a, b *worker) int { return strings.Compare(a.name, b.name) })

	ready, oldest := true, time.Now()
	take := func(errs []string, r bool, seen time.Time) {
		st.Errors = append(st.Errors, errs...)
		ready = ready && r
		if seen.Before(oldest) {
			oldest = seen
		}
	}
	for _, k := range keepers {
		r, errs, ok, seen := k.report()
		st.Records = append(st.Records, r)
		take(errs, ok, seen)
	}
	for _, w := range workers {
		b, errs, ok, seen := w.report()
		st.Backends = append(st.Backends, b)
		// Where the record is known to be empty there is nothing to try.
		_, known := w.keeper.share(w.filter)
		take(errs, ok || !known, seen)
	}
	return ready || late, oldest
}

// startPatience is how long a start waits for the records.
const startPatience = 5 * time.Second

func (p *backendsPart) close() {
	p.mu.Lock()
	workers, keepers, s := p.workers, p.keepers, p.stores
	p.workers, p.keepers, p.stores = map[string]*worker{}, map[string]*keeper{}, nil
	p.mu.Unlock()
	for _, w := range workers {
		w.close()
	}
	for _, k := range keepers {
		k.close()
	}
	if s != nil {
		s.close()
	}
}

// recordPath is the file of a record, or of the copy of one.
func recordPath(dir, name string) string { return filepath.Join(dir, name+".slots.json") }
