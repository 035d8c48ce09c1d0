package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"lb4d/l7/slots"
)

// What HSDO writes where there is nothing to say. Its readers take the address
// "none" for a free slot, and parse no time of a server with weight 0.
const (
	hsdoNone  = "none"
	hsdoNever = "0-0-0 00:00:00.000000"
	hsdoTime  = "2006-01-02 15:04:05.000000" // Python's str(datetime)
)

// row is a slot in HSDO's layout, apart from its number.
type row struct {
	IPAddress, ServerName, ASG, Status, LastWeightUpdate string
	Weight                                               int
}

// rows are the table's, by number.
type rows map[int]row

// rowOf is how HSDO would have the slot.
func rowOf(s slots.Slot) row {
	if s.State == slots.Free {
		return row{IPAddress: hsdoNone, ServerName: hsdoNone, ASG: hsdoNone, Status: "disabled", LastWeightUpdate: hsdoNever}
	}
	r := row{
		IPAddress: s.Addr.Addr().String(), ServerName: s.ID, ASG: s.Group, Status: "enabled",
		LastWeightUpdate: s.Since.UTC().Format(hsdoTime), Weight: s.Weight,
	}
	if !s.RampedAt.IsZero() {
		r.LastWeightUpdate = s.RampedAt.UTC().Format(hsdoTime)
	}
	if r.ASG == "" {
		r.ASG = hsdoNone
	}
	if s.State == slots.Drain {
		r.Weight = 0
	}
	return r
}

// setRow is the part of an update that writes a row, and puts its values.
func setRow(r row, values item) string {
	values[":ip"], values[":name"], values[":asg"] = text(r.IPAddress), text(r.ServerName), text(r.ASG)
	values[":weight"], values[":status"], values[":update"] = number(r.Weight), text(r.Status), text(r.LastWeightUpdate)
	return "IPAddress = :ip, ServerName = :name, ASG = :asg, Weight = :weight, BackendServerStatus = :status, LastWeightUpdate = :update"
}

// readRow reads a row as HSDO's own reader does; ASG came with its version 3
// and may be missing.
func readRow(i item) (n int, r row, ok bool) {
	id, ok := intOf(i, "BackendServerID")
	weight, _ := intOf(i, "Weight")
	return int(id), row{
		IPAddress: textOf(i, "IPAddress"), ServerName: textOf(i, "ServerName"), ASG: textOf(i, "ASG"),
		Status: textOf(i, "BackendServerStatus"), LastWeightUpdate: textOf(i, "LastWeightUpdate"),
		Weight: int(max(0, min(weight, slots.MaxWeight))),
	}, ok && 1 <= id && id <= slots.MaxSlots
}

// scan reads every row.
func (d *DynamoDB) scan(ctx context.Context) (rows, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*opTimeout)
	defer cancel()
	all := rows{}
	pages := dynamodb.NewScanPaginator(d.client, &dynamodb.ScanInput{
		TableName: &d.o.Table, ConsistentRead: aws.Bool(true),
		ProjectionExpression: aws.String("BackendServerID, IPAddress, ServerName, ASG, Weight, BackendServerStatus, LastWeightUpdate"),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the rows of table %s: %w", d.o.Table, short(err))
		}
		for _, i := range page.Items {
			if n, r, ok := readRow(i); ok {
				all[n] = r
			}
		}
	}
	return all, nil
}

// adopt makes a record of the rows that HSDO's server left: each server in its
// slot, with its weight, and its ramp going on from there. A row that cannot
// be right leaves its slot free and is named in the log.
func (d *DynamoDB) adopt(all rows) (slots.Record, error) {
	last := 0
	for n := range all {
		last = max(last, n)
	}
	var r slots.Record
	seen := map[string]bool{}
	for n := 1; n <= last; n++ {
		free := slots.Slot{Number: n, State: slots.Free}
		r.Slots = append(r.Slots, free)
		row, ok := all[n]
		if !ok || row.IPAddress == hsdoNone || row.IPAddress == "" {
			continue
		}
		s, err := d.adoptRow(n, row)
		if err == nil && (seen[row.IPAddress] || seen["name "+s.ID]) {
			err = errors.New("a row before it has the same address or name")
		}
		if err == nil {
			r.Slots[n-1] = s
			if err = r.Check(); err != nil {
				r.Slots[n-1] = free
			}
		}
		if err != nil {
			if d.o.Log != nil && d.complain(n, row) {
				d.o.Log.Warn("leaving out a row of HSDO's table", slog.Int("row", n), slog.Any("err", err))
			}
			continue
		}
		seen[row.IPAddress], seen["name "+s.ID] = true, true
	}
	r.Listed = r.Occupied()
	return r, nil
}

// adoptRow makes a slot of one row.
func (d *DynamoDB) adoptRow(n int, r row) (slots.Slot, error) {
	ip, err := netip.ParseAddr(r.IPAddress)
	if err != nil {
		return slots.Slot{}, fmt.Errorf("address %q is none", r.IPAddress[:min(len(r.IPAddress), 64)])
	}
	s := slots.Slot{
		Number: n, State: slots.Ready, ID: r.ServerName, Addr: netip.AddrPortFrom(ip.Unmap(), d.o.Port),
		Weight: r.Weight, Full: max(r.Weight, d.o.Weight),
	}
	if s.ID == "" || s.ID == hsdoNone {
		s.ID = ip.String()
	}
	if r.ASG != hsdoNone {
		s.Group = r.ASG
	}
	// HSDO's times have no zone, and no microseconds where those are 0. Its
	// servers take traffic from the start, so they count as having passed.
	if t, err := time.Parse("2006-01-02 15:04:05", r.LastWeightUpdate[:max(0, min(len(r.LastWeightUpdate), 26))]); err == nil {
		s.Since = t.UTC().Truncate(time.Millisecond)
	} else {
		s.Since = time.Unix(0, 0).UTC()
	}
	s.PassedAt, s.RampedAt = s.Since, s.Since
	return s, nil
}

// complain tells whether that has not been said before.
func (d *DynamoDB) complain(n int, r row) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.complained == nil {
		d.complained = rows{}
	}
	if old, ok := d.complained[n]; ok && old == r {
		return false
	}
	d.complained[n] = r
	return true
}

// copyRows writes the rows that differ from the record. A row that already has
// a later record's is left alone.
func (d *DynamoDB) copyRows(ctx context.Context, r slots.Record, known rows) (rows, error) {
	if known == nil {
		var err error
		if known, err = d.scan(ctx); err != nil {
			return nil, err
		}
	}
	var failed []string
	var last error
	for _, s := range r.Slots {
		want := rowOf(s)
		if known[s.Number] == want {
			continue
		}
		values := item{":v": number(r.Version)}
		done, err := d.update(ctx, s.Number, "SET "+attrRowVersion+" = :v, "+setRow(want, values),
			"attribute_not_exists("+attrRowVersion+") OR "+attrRowVersion+" <= :v", values)
		switch {
		case err != nil:
			failed, last = append(failed, fmt.Sprint(s.Number)), err
		case done:
			known[s.Number] = want
		default:
			return nil, nil // somebody has a newer record, and sees to its rows
		}
		if ctx.Err() != nil {
			break
		}
	}
	for n := range known {
		// The record is in the first row, the lease in the second.
		if n <= max(len(r.Slots), leaseRow) {
			continue
		}
		_, err := d.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &d.o.Table, Key: rowKey(n),
			ConditionExpression:       aws.String("attribute_not_exists(" + attrRowVersion + ") OR " + attrRowVersion + " <= :v"),
			ExpressionAttributeValues: item{":v": number(r.Version)}})
		if _, newer := errors.AsType[*types.ConditionalCheckFailedException](err); err != nil && !newer {
			failed, last = append(failed, fmt.Sprint(n)), short(err)
			continue
		}
		delete(known, n)
	}
	if last != nil {
		sort.Strings(failed)
		return known, fmt.Errorf("copying the record to %d rows (%s): %w", len(failed), strings.Join(failed[:min(len(failed), 10)], " "), last)
	}
	return known, nil
}
