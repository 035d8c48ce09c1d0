package directory

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"lb4d/l7/runtime"
)

const (
	// single is how many lines are changed or deleted one by one: HAProxy looks
	// at each line for one of them. More than that, and the whole map is given
	// anew at one stroke.
	single = 32
	// bulkAdd is from how many lines on additions travel as payloads.
	bulkAdd = 64
)

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
		all = d.table.pairs()
	}
	d.mu.Unlock()
	if whole || c.size() > 0 {
		k.wantFile = firstOf(k.wantFile, time.Now())
	}
	var err error
	if whole {
		if err = d.haproxy.ReplaceMap(ctx, d.cfg.Map, lines(all)); err == nil {
			k.shown, k.twice = make(map[string]string, len(all)), false
			for _, p := range all {
				k.shown[p.host] = p.backend
			}
		}
	} else if c.size() > 0 {
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
