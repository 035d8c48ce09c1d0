package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"lb4d/l7/slots"
)

// recheck is how often a watch asks etcd outright. The client library keeps a
// broken watch to itself and mends it silently, so this is how a reader learns
// that its record may be out of date.
const recheck = 2 * time.Second

// EtcdOptions say how etcd is reached.
type EtcdOptions struct {
	Endpoints []string // URLs
	// Username and Password, where etcd asks for them.
	Username, Password string
	// TLS for https endpoints; nil: the system's authorities.
	TLS *tls.Config
}

// DialEtcd prepares a client that any number of back ends share. It does not
// wait for etcd to answer.
func DialEtcd(o EtcdOptions) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		Username:             o.Username,
		Password:             o.Password,
		TLS:                  o.TLS,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(), // errors come back from each call
		DialOptions: []grpc.DialOption{
			// grpc's own waits grow to two minutes, long after etcd is back.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: opTimeout,
			}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the etcd client: %w", err)
	}
	return c, nil
}

// Etcd keeps the record in one key. Its version is the key's modification
// revision, so a write by any other means is noticed too. The lease is a
// second key, bound to an etcd lease.
type Etcd struct {
	client     *clientv3.Client
	key, lease string

	mu sync.Mutex
	id clientv3.LeaseID // the etcd lease that holds the lease key; 0: none
}

// NewEtcd keeps the record of the named back end under the prefix: at
// PREFIX/NAME/slots, with the lease at PREFIX/NAME/lease.
func NewEtcd(c *clientv3.Client, prefix, name string) *Etcd {
	base := strings.TrimSuffix(prefix, "/") + "/" + name
	return &Etcd{client: c, key: base + "/slots", lease: base + "/lease"}
}

// get asks for the record, version 0 where there is none, and for the revision
// of the whole store.
func (e *Etcd) get(ctx context.Context) (slots.Record, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	resp, err := e.client.Get(ctx, e.key)
	if err != nil {
		return slots.Record{}, 0, fmt.Errorf("reading %s from etcd: %w", e.key, err)
	}
	if len(resp.Kvs) == 0 {
		return slots.Record{}, resp.Header.Revision, nil
	}
	r, err := e.decode(resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
	return r, resp.Header.Revision, err
}

func (e *Etcd) decode(value []byte, revision int64) (slots.Record, error) {
	r, err := decode(value)
	if err != nil {
		return slots.Record{}, fmt.Errorf("reading %s from etcd: %w", e.key, err)
	}
	r.Version = uint64(revision)
	return r, nil
}

// CompareAndSwap implements Store.
func (e *Etcd) CompareAndSwap(ctx context.Context, next slots.Record) (slots.Record, error) {
	b, err := encode(next)
	if err != nil {
		return slots.Record{}, err
	}
	try, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	// A key that does not exist has modification revision 0.
	resp, err := e.client.Txn(try).
		If(clientv3.Compare(clientv3.ModRevision(e.key), "=", int64(next.Version))).
		Then(clientv3.OpPut(e.key, string(b))).
		Else(clientv3.OpGet(e.key)).
		Commit()
	switch {
	case err != nil:
		return slots.Record{}, fmt.Errorf("writing %s to etcd: %w", e.key, err)
	case resp.Succeeded:
		next.Version = uint64(resp.Header.Revision)
		return next, nil
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return slots.Record{}, ErrConflict
	}
	current, err := e.decode(kvs[0].Value, kvs[0].ModRevision)
	if err != nil {
		return slots.Record{}, err
	}
	return current, ErrConflict
}

// Watch implements Store.
func (e *Etcd) Watch(ctx context.Context) <-chan Update {
	feed := newFeed()
	go func() {
		defer close(feed.out)
		for ctx.Err() == nil {
			r, revision, err := e.get(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				feed.fail(err)
			case r.Version == 0:
				feed.missing()
			default:
				feed.put(r)
			}
			if err == nil {
				err = e.follow(ctx, feed, r.Version, revision)
			}
			if err != nil {
				select {
				case <-time.After(time.Second / 2):
				case <-ctx.Done():
				}
			}
		}
	}()
	return feed.out
}

// follow tells of changes after the record of that version, which was read at
// that revision of the store, until something is not as it should be and the
// record has to be read anew.
func (e *Etcd) follow(ctx context.Context, feed *feed, version uint64, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// After the store's revision, not the key's, which etcd may have forgotten
	// (compaction). Without a leader, a member cut off from the others would go on saying
	// that nothing has changed.
	started := make(chan clientv3.WatchChan, 1)
	go func() {
		// It returns no sooner than etcd has answered, or ctx has ended.
		started <- e.client.Watch(clientv3.WithRequireLeader(ctx), e.key, clientv3.WithRev(revision+1))
	}()
	var changes clientv3.WatchChan
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case changes = <-started:
		case resp, ok := <-changes:
			if !ok {
				return errors.New("the watch has ended")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete {
					feed.missing()
					return nil
				}
				r, err := e.decode(ev.Kv.Value, ev.Kv.ModRevision)
				if err != nil {
					feed.fail(err)
					continue
				}
				// The question below may have had the answer first.
				if r.Version > version {
					version = r.Version
					feed.put(r)
				}
			}
		case <-tick.C:
			r, now, err := e.get(ctx)
			switch {
			case err != nil:
				feed.fail(err)
				return err
			case r.Version < version || now < revision:
				// Another etcd, or one without its data: the watch's
				// revisions mean nothing there.
				return nil
			case r.Version > 0:
				version = r.Version
				feed.put(r)
			}
		}
	}
}

// Lease implements Store. etcd counts the time in whole seconds, and makes too
// short a lease longer: 2 s with its own settings.
func (e *Etcd) Lease(ctx context.Context, holder string, ttl time.Duration) (Tenure, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if ttl <= 0 {
		if e.id == 0 {
			return Tenure{}, nil
		}
		// The key goes with the lease.
		_, err := e.client.Revoke(ctx, e.id)
		e.id = 0
		if err != nil {
			return Tenure{}, fmt.Errorf("giving up the lease in etcd: %w", err)
		}
		return Tenure{}, nil
	}
	began := time.Now()
	if e.id != 0 {
		resp, err := e.client.KeepAliveOnce(ctx, e.id)
		switch {
		case err == nil:
			// The key may have been deleted, or written by another.
			if got, err := e.client.Get(ctx, e.lease); err == nil && len(got.Kvs) == 1 && got.Kvs[0].Lease == int64(e.id) {
				return Tenure{Held: true, Holder: holder, Until: began.Add(time.Duration(resp.TTL) * time.Second)}, nil
			} else if err != nil {
				return Tenure{}, fmt.Errorf("renewing the lease in etcd: %w", err)
			}
			_, _ = e.client.Revoke(ctx, e.id)
		case !errors.Is(err, rpctypes.ErrLeaseNotFound):
			return Tenure{}, fmt.Errorf("renewing the lease in etcd: %w", err)
		}
		e.id = 0
	}
	// Looking first costs less than a lease that has to be revoked again.
	got, err := e.client.Get(ctx, e.lease)
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease in etcd: %w", err)
	}
	revision := int64(0)
	if len(got.Kvs) > 0 {
		if by := string(got.Kvs[0].Value); by != holder {
			return Tenure{Holder: by}, nil
		}
		// This holder's, from before it was started again.
		revision = got.Kvs[0].ModRevision
	}
	seconds := int64((ttl + time.Second - 1) / time.Second)
	began = time.Now()
	grant, err := e.client.Grant(ctx, seconds)
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease in etcd: %w", err)
	}
	resp, err := e.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(e.lease), "=", revision)).
		Then(clientv3.OpPut(e.lease, holder, clientv3.WithLease(grant.ID))).
		Else(clientv3.OpGet(e.lease)).
		Commit()
	if err == nil && resp.Succeeded {
		e.id = grant.ID
		return Tenure{Held: true, Holder: holder, Until: began.Add(time.Duration(grant.TTL) * time.Second)}, nil
	}
	_, _ = e.client.Revoke(ctx, grant.ID) // or it ends by itself
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease in etcd: %w", err)
	}
	t := Tenure{}
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		t.Holder = string(kvs[0].Value)
	}
	return t, nil
}
