package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"lb4d/l7/runtime"
)

const (
	// look is how often HAProxy is asked which process it is and how many
	// lines its map has.
	look = time.Second
	// compareEach is how often the map is read in full all the same: 100,000
	// lines take HAProxy 30 ms.
	compareEach = time.Minute
	// compareRest is the least time between two full readings that misses of
	// known hosts ask for, so that an old HAProxy process that serves out its
	// last connections does not cause one a second.
	compareRest = 5 * time.Second
	// single is how many lines are changed or deleted one by one: HAProxy looks
	// at each line for one of them. More than that, and the whole map is given
	// anew at one stroke.
	single = 32
	// bulkAdd is from how many lines on additions travel as payloads.
	bulkAdd = 64
)

// keeper brings HAProxy's map in line with the table. It alone writes the map,
// in one goroutine, so that no line is there twice.
type keeper struct {
	d *Directory
	// shown is the map as last read or written: what lookups find.
	shown map[string]string
	known bool // shown has been read from HAProxy
	// twice tells that a key was read more than once.
	twice bool
	pid   int

	metAt      time.Time // the latest look at HAProxy
	comparedAt time.Time
	wantFile   time.Time // since when the file differs; zero: it does not
	fileTook   time.Duration
	written    []byte
}

func newKeeper(d *Directory) *keeper {
	return &keeper{d: d, shown: map[string]string{}}
}

// adopt takes over what a process before this one left: HAProxy's map, and the
// file for what the map lacks.
func (k *keeper) adopt(ctx context.Context) {
	d := k.d
	err := k.meet(ctx)
	file, ferr := readFile(d.cfg.Map)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	k.took(err)
	if ferr != nil {
		d.now.file = ferr.Error()
		d.log.Warn("the map's file cannot be read", "err", ferr)
	}
	k.takeOver(maps.All(k.shown), now)
	k.takeOver(file, now)
	for host := range d.table.entries {
		d.dirty[host] = struct{}{}
	}
	if k.known {
		// Lines that were not taken over go.
		for host := range k.shown {
			d.dirty[host] = struct{}{}
		}
	}
	k.wantFile = now
	d.ready = true
	if n := len(d.table.entries); n > 0 {
		d.log.Info("took over the hosts of the map", "map", d.cfg.Map, "hosts", n)
	}
	d.wake()
}

// takeOver notes lines that another process left, if they could be answers.
// The lock is held.
func (k *keeper) takeOver(lines func(yield func(host, backend string) bool), now time.Time) {
	d := k.d
	for h, backend := range lines {
		host, plain, err := hostOf(h)
		if _, berr := checked(backend); err != nil || !plain || host != h || berr != nil || d.backends != nil && !d.backends[backend] {
			continue
		}
		if len(d.table.entries) >= d.cfg.MaxEntries {
			return
		}
		d.table.adopt(host, backend, now)
	}
}

// run keeps the map until ctx ends, then writes the file a last time.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		k.pass(ctx)
		select {
		case <-ctx.Done():
			k.keepFile(true)
			return
		case <-tick.C:
		case <-k.d.poke:
			// What comes together is written together.
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// pass makes the map equal to the table, and the file.
func (k *keeper) pass(ctx context.Context) {
	d := k.d
	d.mu.Lock()
	d.now.seen = time.Now()
	waiting := d.now.waiting // what they wait for is marked already
	d.now.waiting = nil
	due := !k.known || d.compare || time.Since(k.metAt) >= look
	d.mu.Unlock()
	var err error
	if due {
		err = k.meet(ctx)
	}
	if err == nil {
		k.makeRoom(ctx)
		err = k.write(ctx)
	}
	d.mu.Lock()
	if ctx.Err() == nil {
		k.took(err)
	}
	if len(d.dirty) > 0 {
		// HAProxy does not take them now; it may read them when it starts.
		k.wantFile = firstOf(k.wantFile, time.Now())
	}
	d.mu.Unlock()
	for _, w := range waiting {
		w <- err
	}
	k.keepFile(false)
}

// took notes how it went with HAProxy. The lock is held.
func (k *keeper) took(err error) {
	d := k.d
	was := d.now.haproxy
	d.now.haproxy = ""
	if err != nil {
		d.now.haproxy = "HAProxy's map is not kept: " + err.Error()
	}
	d.now.entries = len(k.shown)
	switch {
	case was == "" && err != nil:
		d.log.Warn("HAProxy's map is not kept; the next pass tries again", "err", err)
	case was != "" && err == nil:
		d.log.Info("HAProxy's map is kept again")
	}
}

// meet finds out which HAProxy is there. Where it is another than before, or
// its map has another number of lines than it should, or a known host missed,
// all is read anew.
func (k *keeper) meet(ctx context.Context) error {
	d := k.d
	info, err := d.haproxy.ShowInfo(ctx)
	if err != nil {
		k.known = false
		return err
	}
	all, err := d.haproxy.ShowMaps(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(m runtime.Map) bool { return m.File == d.cfg.Map })
	if i < 0 {
		k.known = false
		return fmt.Errorf("its configuration refers to no map %s", d.cfg.Map)
	}
	now := time.Now()
	k.metAt = now
	d.mu.Lock()
	asked := d.compare && now.Sub(k.comparedAt) >= compareRest
	d.mu.Unlock()
	other := info.PID != k.pid
	if k.known && !other && !asked && all[i].Entries == len(k.shown) && now.Sub(k.comparedAt) < compareEach {
		return nil
	}
	if err := k.backends(ctx); err != nil {
		return err
	}
	if err := k.read(ctx); err != nil {
		return err
	}
	if other && k.pid != 0 {
		d.log.Info("another HAProxy process answers; its map was compared", "pid", info.PID, "lines", len(k.shown))
	}
	k.pid = info.PID
	return nil
}

// read takes in HAProxy's map as it is, and marks what differs.
func (k *keeper) read(ctx context.Context) error {
	d := k.d
	shown := make(map[string]string, len(k.shown))
	twice := false
	if err := d.haproxy.ShowMap(ctx, d.cfg.Map, func(host, backend string) error {
		if _, ok := shown[host]; ok {
			twice = true // lookups find the first one
			return nil
		}
		shown[host] = backend
		return nil
	}); err != nil {
		return err
	}
	now := time.Now()
	k.shown, k.known, k.twice, k.comparedAt = shown, true, twice, now
	d.mu.Lock()
	defer d.mu.Unlock()
	d.compare = false
	d.count.Compared++
	if !d.ready {
		return nil // adopt sees to the rest
	}
	if k.pid == 0 {
		k.takeOver(maps.All(shown), now) // HAProxy was away when lb7d started
	}
	before := len(d.dirty)
	for host, backend := range shown {
		if e := d.table.entries[host]; e == nil || e.backend != backend {
			d.dirty[host] = struct{}{}
		}
	}
	for host, e := range d.table.entries {
		if _, ok := shown[host]; !ok {
			d.dirty[host] = struct{}{}
		} else if e.written.IsZero() {
			e.written = now
		}
	}
	if n := len(d.dirty) - before; n > 0 {
		d.count.Mended += uint64(n)
	}
	return nil
}

// backends reads what an answer may name, unless the configuration says so,
// and has hosts asked for again whose back end is gone. A back end with a
// server that is our own listener is left out: an answer that names it would
// send requests round in a circle.
func (k *keeper) backends(ctx context.Context) error {
	d := k.d
	if len(d.cfg.Backends) > 0 {
		return nil
	}
	names, err := d.haproxy.ShowBackends(ctx)
	if err != nil {
		return err
	}
	servers, err := d.haproxy.ShowServersState(ctx, "")
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	if own, err := netip.ParseAddrPort(d.cfg.Listen); err == nil {
		for _, s := range servers {
			if s.Addr == own {
				delete(known, s.Backend)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backends = known
	var gone []string
	for host, e := range d.table.entries {
		if !known[e.backend] {
			gone = append(gone, host)
		}
	}
	for _, h := range gone {
		d.table.remove(h)
	}
	if len(gone) > 0 {
		d.drop(gone)
		d.log.Warn("hosts were forgotten whose back end HAProxy no longer has", "hosts", len(gone), "one", gone[0])
	}
	return nil
}

// makeRoom forgets the least recently used hosts beyond max_entries, a few
// more than needed, because taking lines out of a large map is dear and a full
// map would pay that for each new host.
func (k *keeper) makeRoom(ctx context.Context) {
	d := k.d
	d.mu.Lock()
	over := len(d.table.entries) - d.cfg.MaxEntries
	d.mu.Unlock()
	if over <= 0 {
		return
	}
	d.readUsage(ctx, 5*time.Second)
	d.mu.Lock()
	defer d.mu.Unlock()
	hosts := d.table.evict(len(d.table.entries) - d.cfg.MaxEntries + d.cfg.MaxEntries/64)
	d.drop(hosts)
	d.count.Evicted += uint64(len(hosts))
}

// write carries out what is marked. On an error the marks stay.
func (k *keeper) write(ctx context.Context) error {
	d := k.d
	d.mu.Lock()
	c := diff(d.dirty, k.shown, d.table.entries)
	marked := d.dirty
	d.dirty = map[string]struct{}{}
	var all []pair
	whole := k.twice || len(c.set)+len(c.del) > single
	if whole {
		all = d.table.sorted()
	}
	d.mu.Unlock()
	if !whole && c.size() == 0 {
		return nil
	}
	k.wantFile = firstOf(k.wantFile, time.Now())
	var err error
	if whole {
		if err = d.haproxy.ReplaceMap(ctx, d.cfg.Map, lines(all)); err == nil {
			k.shown, k.twice = make(map[string]string, len(all)), false
			for _, p := range all {
				k.shown[p.host] = p.backend
			}
		}
	} else {
		err = k.change(ctx, c)
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		// What was carried out before the error is not known: read again.
		maps.Copy(d.dirty, marked)
		k.known = false
		return err
	}
	d.count.Written += uint64(c.size())
	for host := range marked {
		if e := d.table.entries[host]; e != nil && k.shown[host] == e.backend {
			e.written = now
		}
	}
	return nil
}

// firstOf is a, or b where a is zero.
func firstOf(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

// changes are what takes the map from what it is to what it should be.
type changes struct {
	del []string
	set []pair
	add []pair
}

func (c changes) size() int { return len(c.del) + len(c.set) + len(c.add) }

// diff compares the marked hosts: what lookups find for each, and what they
// should.
func diff(marked map[string]struct{}, shown map[string]string, entries map[string]*entry) (c changes) {
	for host := range marked {
		is, there := shown[host]
		switch e := entries[host]; {
		case e == nil && there:
			c.del = append(c.del, host)
		case e != nil && !there:
			c.add = append(c.add, pair{host, e.backend})
		case e != nil && is != e.backend:
			c.set = append(c.set, pair{host, e.backend})
		}
	}
	return c
}

// change sends a few changes: deletions first, so that the map is never larger
// than it may be.
func (k *keeper) change(ctx context.Context, c changes) error {
	file := k.d.cfg.Map
	var commands []runtime.Command
	var errs []error
	put := func(cmd runtime.Command, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		commands = append(commands, cmd)
	}
	for _, h := range c.del {
		put(runtime.DelMap(file, h))
	}
	for _, p := range c.set {
		put(runtime.SetMap(file, p.host, p.backend))
	}
	if len(c.add) < bulkAdd {
		for _, p := range c.add {
			put(runtime.AddMap(file, p.host, p.backend))
		}
	}
	errs = append(errs, k.d.haproxy.Do(ctx, commands...)...)
	if len(c.add) >= bulkAdd {
		errs = append(errs, k.d.haproxy.FillMap(ctx, file, 0, lines(c.add)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, h := range c.del {
		delete(k.shown, h)
	}
	for _, p := range slices.Concat(c.set, c.add) {
		k.shown[p.host] = p.backend
	}
	return nil
}

// lines hands pairs over one by one.
func lines(pairs []pair) func(yield func(host, backend string) bool) {
	return func(yield func(string, string) bool) {
		for _, p := range pairs {
			if !yield(p.host, p.backend) {
				return
			}
		}
	}
}
