package store

import (
	"context"
	"fmt"
	"time"
)

// Lease implements Store. A lease counts as abandoned when its count has not
// grown for its whole duration, by the clock of whoever looks; so the hosts'
// clocks need not agree.
func (d *DynamoDB) Lease(ctx context.Context, holder string, ttl time.Duration) (Tenure, error) {
	began := time.Now()
	row, err := d.get(ctx, leaseRow)
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease: %w", err)
	}
	now := lease{holder: textOf(row, attrHolder)}
	now.count, _ = intOf(row, attrCount)
	millis, _ := intOf(row, attrTTL)
	now.ttl = time.Duration(max(0, min(millis, 3_600_000))) * time.Millisecond

	d.mu.Lock()
	if d.seen != now {
		d.seen, d.since = now, began
	}
	abandoned := began.Sub(d.since) >= now.ttl
	d.mu.Unlock()

	// Each write is on top of the one that was seen.
	condition, values := "attribute_not_exists("+attrCount+")", item{}
	if _, ever := row[attrCount]; ever {
		condition, values[":count"] = attrCount+" = :count", number(now.count)
	}
	if ttl <= 0 {
		d.mine(false)
		if now.holder != holder {
			return Tenure{}, nil
		}
		values[":next"] = number(now.count + 1)
		_, err := d.update(ctx, leaseRow, "SET "+attrCount+" = :next REMOVE "+attrHolder, condition, values)
		return Tenure{}, err
	}
	if now.holder != "" && now.holder != holder && !abandoned {
		d.mine(false)
		return Tenure{Holder: now.holder}, nil
	}
	values[":next"], values[":holder"], values[":ttl"] = number(now.count+1), text(holder), number(ttl.Milliseconds())
	// The row may not exist yet, and HSDO's readers take every row for whole.
	set := "SET " + attrCount + " = :next, " + attrHolder + " = :holder, " + attrTTL + " = :ttl" + setEmptyRow(values)
	done, err := d.update(ctx, leaseRow, set, condition, values)
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease: %w", err)
	}
	d.mine(done)
	if !done {
		return Tenure{}, nil // somebody was faster; the next try tells who
	}
	return Tenure{Held: true, Holder: holder, Until: began.Add(ttl)}, nil
}

// mine notes whether this process has the lease. Whoever gets it sees to the
// rows, which its predecessor may have left behind.
func (d *DynamoDB) mine(held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stale = d.stale || held && !d.held
	d.held = held
}

// setEmptyRow completes an update with what a free slot's row has, where the
// row has nothing.
func setEmptyRow(values item) string {
	values[":none"], values[":zero"], values[":never"], values[":off"] = text(hsdoNone), number(0), text(hsdoNever), text("disabled")
	set := ""
	for _, a := range [][2]string{
		{"IPAddress", ":none"}, {"ServerName", ":none"}, {"ASG", ":none"},
		{"Weight", ":zero"}, {"LastWeightUpdate", ":never"}, {"BackendServerStatus", ":off"},
	} {
		set += ", " + a[0] + " = if_not_exists(" + a[0] + ", " + a[1] + ")"
	}
	return set
}
