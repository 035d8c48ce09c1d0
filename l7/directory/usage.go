package directory

import (
	"context"
	"fmt"
	"time"
)

// usage is what HAProxy's stick table of used hosts told. Hits do not come
// here, so nothing else can tell which hosts are used: a line of a map has no
// time of its last use.
type usage struct {
	readAt time.Time
	// expire is the longest time left that a key ever had, which a key has
	// right after its use.
	expire  time.Duration
	trouble string // why the table was not read; empty while it is
}

// readUsage notes which hosts were used lately, unless that was done within
// fresh. It tells whether what it knows is good.
func (d *Directory) readUsage(ctx context.Context, fresh time.Duration) bool {
	if d.cfg.UsageTable == "" {
		return false
	}
	now := time.Now()
	d.mu.Lock()
	if now.Sub(d.usage.readAt) < fresh {
		defer d.mu.Unlock()
		return d.usage.trouble == ""
	}
	d.mu.Unlock()
	left := map[string]time.Duration{}
	longest := time.Duration(0)
	err := d.haproxy.ShowTable(ctx, d.cfg.UsageTable, func(host string, l time.Duration) error {
		left[host] = l
		longest = max(longest, l)
		return nil
	})
	d.mu.Lock()
	was := d.usage.trouble
	d.usage.readAt = now
	if err != nil {
		defer d.mu.Unlock()
		d.usage.trouble = fmt.Sprintf("which hosts are used is not known: %v", err)
		if was == "" {
			d.log.Warn("which hosts are used is not known; none is let go for being unused", "table", d.cfg.UsageTable, "err", err)
		}
		return false
	}
	d.usage.trouble = ""
	d.usage.expire = max(d.usage.expire, longest)
	at := make(map[string]time.Time, len(left))
	for host, l := range left {
		at[host] = now.Add(l - d.usage.expire)
	}
	all := d.table.noteUses(at)
	d.mu.Unlock()
	sortUses(all)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table.reorder(all)
	return true
}
