package directory

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
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

// backends reads which back ends HAProxy has, and forgets hosts whose back end
// it does not have. An answer may name those that the configuration lists, or
// any where it lists none. A back end with a server that is our own listener is
// left out: an answer that names it would send requests round in a circle.
func (k *keeper) backends(ctx context.Context) error {
	d := k.d
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
	var missing []string
	for _, b := range slices.Concat(d.cfg.Backends, []string{d.cfg.DefaultBackend}) {
		if b != "" && !known[b] && !slices.Contains(missing, b) {
			missing = append(missing, b)
		}
	}
	if len(d.cfg.Backends) > 0 {
		maps.DeleteFunc(known, func(name string, _ bool) bool { return !slices.Contains(d.cfg.Backends, name) })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.missing = ""; len(missing) > 0 {
		d.now.missing = "HAProxy has no back end " + strings.Join(missing, ", ") + ", or one that leads to lb7d itself"
	}
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

// firstOf is a, or b where a is zero.
func firstOf(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}
