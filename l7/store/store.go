// Package store keeps a slot record where every host that needs it can read it
// and none can change it behind another's back.
//
// A Store holds one record of one back end. It is written by compare-and-swap
// only, so it does not matter who writes, or how many at once: no slot is ever
// given twice. A lease says who asks the source of the servers, so that one
// does instead of all; a mistake about it costs a few questions more, never a
// wrong record.
//
// There are three: File for one host (file.go), Etcd (etcd.go), and DynamoDB
// in the layout of HSDO's table (dynamodb.go). Keep adds a copy on the disk to
// any of them, which serves when the store is away at a start (keep.go).
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"lb4d/l7/slots"
)

// Store is one shared record.
type Store interface {
	// CompareAndSwap writes next if the store still has the version that next
	// names, and returns it with its new version. Else nothing is written,
	// and it returns what the store has, with ErrConflict.
	CompareAndSwap(ctx context.Context, next slots.Record) (slots.Record, error)
	// Watch tells the record now and whenever it changes, until ctx ends and
	// the channel is closed. Whoever reads slowly gets the last update only.
	Watch(ctx context.Context) <-chan Update
	// Lease takes the lease, or renews it, for ttl; or tells who has it. A
	// ttl of 0 gives it up. The holder's name must be that of no other
	// process.
	Lease(ctx context.Context, holder string, ttl time.Duration) (Tenure, error)
}

// ErrConflict tells that somebody else has written since.
var ErrConflict = errors.New("the record has changed meanwhile")

// ErrGone tells that the store has lost a record that it had. The next Change
// puts back the one that was last seen.
var ErrGone = errors.New("the store has no record any more")

// Update is what a watch tells.
type Update struct {
	// Record is the last one seen; version 0 and empty where the store has
	// never had one.
	Record slots.Record
	// Err is why Record may be out of date; nil while it is not.
	Err error
}

// Tenure is who has the lease.
type Tenure struct {
	// Held tells that the one who asked has it.
	Held bool
	// Holder is who has it, empty where nobody does or it is not known.
	Holder string
	// Until is when it ends unless it is renewed, by this host's clock. Only
	// while Held.
	Until time.Time
}

// opTimeout bounds each question to a store.
const opTimeout = 3 * time.Second

// changeFor bounds how long Change begins anew after conflicts. Each one means
// that somebody else got something done; so many in a row mean a fault.
const changeFor = 15 * time.Second

// Change applies change to the record until it has been written on top of
// nobody else's write. It starts from the record that the caller knows; change
// may be called several times, each time with a newer one, and returns false
// where there is nothing to write. Change returns the record as the store has
// it then. A store that has lost its record gets the known one back.
func Change(ctx context.Context, s Store, known slots.Record, change func(slots.Record) (slots.Record, bool)) (slots.Record, error) {
	current := known
	began := time.Now()
	for try := 1; ; try++ {
		next, ok := change(current)
		if !ok {
			return current, nil
		}
		next.Version = current.Version
		written, err := s.CompareAndSwap(ctx, next)
		if err == nil {
			return written, nil
		}
		if !errors.Is(err, ErrConflict) {
			return current, err
		}
		if current = written; current.Version == 0 && len(current.Slots) == 0 {
			current = known
			current.Version = 0
		}
		if time.Since(began) > changeFor {
			return current, fmt.Errorf("changing the slot record: given up after %d tries: %w", try, ErrConflict)
		}
		// Two that collide wait for different times, and not for long: whoever
		// writes on has the newest version already.
		pause := rand.N(time.Duration(min(try, 10)) * time.Millisecond)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return current, fmt.Errorf("changing the slot record: %w", context.Cause(ctx))
		}
	}
}

// encode writes a record as File and Etcd keep it.
func encode(r slots.Record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the slot record: %w", err)
	}
	return append(b, '\n'), nil
}

// decode reads a record and refuses one that could not have been meant.
func decode(b []byte) (slots.Record, error) {
	var r slots.Record
	if err := json.Unmarshal(b, &r); err != nil {
		return slots.Record{}, fmt.Errorf("decoding the slot record: %w", err)
	}
	return r, r.Check()
}

// feed is a watch's channel, in which the last update replaces one that nobody
// has read yet.
type feed struct {
	out  chan Update
	last Update
	told bool // last has been sent
}

func newFeed() *feed { return &feed{out: make(chan Update, 1)} }

// put tells a record, unless it is the last one.
func (f *feed) put(r slots.Record) {
	if f.told && f.last.Err == nil && f.last.Record.Version == r.Version && f.last.Record.Equal(r) {
		return
	}
	f.send(Update{Record: r})
}

// fail tells why there is no newer record, once for each reason.
func (f *feed) fail(err error) {
	if f.told && f.last.Err != nil && f.last.Err.Error() == err.Error() {
		return
	}
	f.send(Update{Record: f.last.Record, Err: err})
}

func (f *feed) send(u Update) {
	f.last, f.told = u, true
	select {
	case <-f.out:
	default:
	}
	// The feed has one writer, so there is room now.
	f.out <- u
}

// missing tells of a store without a record: news only for one that had one.
func (f *feed) missing() {
	if f.last.Record.Version == 0 {
		f.put(slots.Record{})
		return
	}
	f.fail(ErrGone)
}
