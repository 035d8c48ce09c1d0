package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"lb4d/internal/awsclient"
	"lb4d/l7/slots"
)

// Attributes beyond HSDO's, whose readers ask for their own by name and see
// none of these.
const (
	// In the first row: the record as a whole and its version. One item
	// changes atomically however many slots there are; a transaction over
	// rows ends at 100.
	attrRecord  = "SlotRecord" // binary: gzip of the record's JSON
	attrVersion = "SlotRecordVersion"
	// In every row: the version of the record that it was copied from.
	attrRowVersion = "RowVersion"
	// In the second row, because DynamoDB charges a write by the whole item's
	// size, and the record would make each renewal dear.
	attrHolder = "LeaseHolder"
	attrCount  = "LeaseCount"  // grows with each renewal
	attrTTL    = "LeaseMillis" // how long the holder means it to last
)

const (
	recordRow = 1
	leaseRow  = 2
)

// DynamoDBOptions say how a table is used.
type DynamoDBOptions struct {
	// Table has the numeric key BackendServerID, as HSDO's has.
	Table string
	// Port and Weight of servers that are taken over from rows of HSDO's,
	// which have no port and not the weight that a ramp leads to.
	Port   uint16
	Weight int
	// Poll is how often the record is read; 1 s where it is 0. Each time
	// takes one read unit for every 4 kB of it; 10 slots are well below that,
	// 1,000 take about 10 units.
	Poll time.Duration
	Log  *slog.Logger
}

// DynamoDB keeps the record in a table of HSDO's layout. The record as a whole
// is an attribute of the first row, beside HSDO's, and is what counts; the rows
// are copied from it, each after a write, for HSDO's clients to read on. A
// table without that attribute is read as HSDO's server left it, slot by slot,
// so that every server keeps its number, until the first write makes it ours.
// From then on no HSDO server may write to it. Nothing is added that would
// keep HSDO from running on the table again: there are as many rows as slots,
// and two at least.
//
// An excluded server's row has weight 0, since HSDO knows no draining.
type DynamoDB struct {
	client *dynamodb.Client
	o      DynamoDBOptions
	// wrote wakes the watch to copy the record to the rows.
	wrote chan struct{}

	mu sync.Mutex
	// stale tells that this process wrote, or has just got the lease, and so
	// has to see to the rows.
	stale bool
	held  bool  // the last answer of Lease
	seen  lease // by another holder, since when
	since time.Time
	// complained are the rows of HSDO that have been named in the log.
	complained rows
}

// lease is the lease as it stands in the table.
type lease struct {
	holder string
	count  int64
	ttl    time.Duration
}

// NewDynamoDB keeps the record in the table. The client says region, endpoint
// and credentials.
func NewDynamoDB(c *dynamodb.Client, o DynamoDBOptions) *DynamoDB {
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	return &DynamoDB{client: c, o: o, wrote: make(chan struct{}, 1)}
}

// DialDynamoDB prepares a client with the credentials that AWS's own tools would
// use. An empty region is that of the environment or the instance, an empty
// endpoint AWS's.
func DialDynamoDB(ctx context.Context, region, endpoint string) (*dynamodb.Client, error) {
	settings, err := awsclient.Load(ctx, awsclient.Options{
		Region: region, Endpoint: endpoint,
		// Each question ends after opTimeout, whatever was tried by then.
		Attempts: 3, MaxBackoff: opTimeout / 4,
		MaxBytes: maxFile,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the DynamoDB client: %w", err)
	}
	return dynamodb.NewFromConfig(settings), nil
}

// item is one row's attributes.
type item = map[string]types.AttributeValue

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number[T ~int | ~int64 | ~uint64](n T) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

func rowKey(n int) item { return item{"BackendServerID": number(n)} }

// textOf and intOf read an attribute, which may be missing or of another type.
func textOf(i item, name string) string {
	if v, ok := i[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func intOf(i item, name string) (int64, bool) {
	v, ok := i[name].(*types.AttributeValueMemberN)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(v.Value, 10, 64)
	return n, err == nil
}

func (d *DynamoDB) get(ctx context.Context, row int) (item, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	out, err := d.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &d.o.Table, Key: rowKey(row), ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return nil, fmt.Errorf("reading row %d of table %s: %w", row, d.o.Table, short(err))
	}
	return out.Item, nil
}

// update changes a row where the condition holds; false where it does not.
func (d *DynamoDB) update(ctx context.Context, row int, set, condition string, values item) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	in := &dynamodb.UpdateItemInput{
		TableName: &d.o.Table, Key: rowKey(row),
		UpdateExpression: &set, ConditionExpression: &condition, ExpressionAttributeValues: values,
	}
	_, err := d.client.UpdateItem(ctx, in)
	if _, failed := errors.AsType[*types.ConditionalCheckFailedException](err); failed {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("writing row %d of table %s: %w", row, d.o.Table, short(err))
	}
	return true, nil
}

// short takes the innermost of an SDK's error, which names operation, request
// and attempts around it.
func short(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil || errors.Is(err, context.DeadlineExceeded) && !errors.Is(next, context.DeadlineExceeded) {
			return err
		}
		err = next
	}
}

// read asks for the record; version 0 where the table is not ours yet.
func (d *DynamoDB) read(ctx context.Context) (slots.Record, error) {
	row, err := d.get(ctx, recordRow)
	if err != nil {
		return slots.Record{}, err
	}
	if _, ours := intOf(row, attrVersion); !ours {
		rows, err := d.scan(ctx)
		if err != nil {
			return slots.Record{}, err
		}
		return d.adopt(rows)
	}
	return d.unpack(row)
}

// unpack reads the record out of its row.
func (d *DynamoDB) unpack(row item) (slots.Record, error) {
	fail := func(err error) (slots.Record, error) {
		return slots.Record{}, fmt.Errorf("reading %s in table %s: %w", attrRecord, d.o.Table, err)
	}
	v, ok := row[attrRecord].(*types.AttributeValueMemberB)
	if !ok {
		return fail(errors.New("it is not binary"))
	}
	z, err := gzip.NewReader(bytes.NewReader(v.Value))
	if err != nil {
		return fail(err)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxFile))
	if err != nil {
		return fail(err)
	}
	r, err := decode(b)
	if err != nil {
		return fail(err)
	}
	version, _ := intOf(row, attrVersion)
	r.Version = uint64(version)
	return r, nil
}

// CompareAndSwap implements Store.
func (d *DynamoDB) CompareAndSwap(ctx context.Context, next slots.Record) (slots.Record, error) {
	old := next.Version
	next.Version++
	b, err := encode(next)
	if err != nil {
		return slots.Record{}, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(b) // into memory: it cannot fail
	_ = z.Close()

	values := item{":record": &types.AttributeValueMemberB{Value: packed.Bytes()}, ":next": number(next.Version)}
	condition := "attribute_not_exists(" + attrVersion + ")"
	if old != 0 {
		condition, values[":old"] = attrVersion+" = :old", number(old)
	}
	first := slots.Slot{Number: recordRow, State: slots.Free}
	if len(next.Slots) > 0 {
		first = next.Slots[0]
	}
	set := "SET " + attrRecord + " = :record, " + attrVersion + " = :next, " + attrRowVersion + " = :next, " + setRow(rowOf(first), values)
	done, err := d.update(ctx, recordRow, set, condition, values)
	switch {
	case err != nil:
		return slots.Record{}, err
	case !done:
		current, err := d.read(ctx)
		if err != nil {
			return slots.Record{}, err
		}
		return current, ErrConflict
	}
	d.mu.Lock()
	d.stale = true
	d.mu.Unlock()
	select {
	case d.wrote <- struct{}{}:
	default:
	}
	return next, nil
}

// Watch implements Store. It is also what copies the record to the rows, after
// this process has written it or has got the lease; where that fails it says
// so, and tries again at each poll.
func (d *DynamoDB) Watch(ctx context.Context) <-chan Update {
	feed := newFeed()
	go func() {
		defer close(feed.out)
		tick := time.NewTicker(d.o.Poll)
		defer tick.Stop()
		var copied rows
		for {
			r, err := d.read(ctx)
			if err == nil && r.Version > 0 {
				copied, err = d.copyIfStale(ctx, r, copied)
				if err != nil {
					feed.put(r) // the record is good all the same
				}
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				feed.fail(err)
			case r.Version == 0 && feed.last.Record.Version != 0:
				feed.fail(ErrGone)
			default:
				feed.put(r)
			}
			select {
			case <-tick.C:
			case <-d.wrote:
			case <-ctx.Done():
				return
			}
		}
	}()
	return feed.out
}

// copyIfStale brings the rows in step with the record where it is on this
// process to do so. It returns the rows as they are then, so that the next
// time only what differs is written.
func (d *DynamoDB) copyIfStale(ctx context.Context, r slots.Record, known rows) (rows, error) {
	d.mu.Lock()
	stale := d.stale
	d.stale = false
	d.mu.Unlock()
	if !stale {
		return known, nil
	}
	known, err := d.copyRows(ctx, r, known)
	if err != nil {
		d.mu.Lock()
		d.stale = true
		d.mu.Unlock()
	}
	return known, err
}
