package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"lb4d/l7/slots"
)

// maxFile bounds the file that is read, in bytes.
const maxFile = 16 << 20

// File keeps the record in a file, for one host. Beside it lie PATH.lock,
// which whoever writes holds, and PATH.lease, which whoever has the lease
// holds: the kernel takes both back from a process that ends, so the lease
// needs no time to run out.
type File struct {
	path string

	mu    sync.Mutex
	lease *os.File // open and locked while the lease is held
}

// NewFile keeps the record at path. Its directory has to exist.
func NewFile(path string) *File { return &File{path: path} }

// read reads the record; fs.ErrNotExist where there is none.
func (f *File) read() (slots.Record, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return slots.Record{}, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return slots.Record{}, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if len(b) > maxFile {
		return slots.Record{}, fmt.Errorf("reading %s: over %d bytes", f.path, maxFile)
	}
	r, err := decode(b)
	if err != nil {
		return slots.Record{}, fmt.Errorf("reading %s: %w", f.path, err)
	}
	return r, nil
}

// CompareAndSwap implements Store. A file that cannot be read is not written
// over: what it says may be worth a person's look.
func (f *File) CompareAndSwap(ctx context.Context, next slots.Record) (slots.Record, error) {
	lock, err := lockFile(ctx, f.path+".lock")
	if err != nil {
		return slots.Record{}, err
	}
	defer lock.Close()
	current, err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return slots.Record{}, err
	}
	if current.Version != next.Version {
		return current, ErrConflict
	}
	next.Version++
	if err := f.write(next); err != nil {
		return current, err
	}
	return next, nil
}

// write replaces the file at one stroke, so that a reader, or a start after a
// loss of power, sees all of one record or all of the other.
func (f *File) write(r slots.Record) error {
	b, err := encode(r)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(f.path, b, 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", f.path, err)
	}
	return nil
}

// lockFile waits for the lock until ctx ends or opTimeout has passed. Closing
// the file unlocks it.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("locking %s: another process holds it: %w", path, ctx.Err())
		}
	}
}

// Watch implements Store. It watches the directory, because a watch on the
// file ends with the first rename, and looks each second besides, in case an
// event is lost or the directory is replaced.
func (f *File) Watch(ctx context.Context) <-chan Update {
	feed := newFeed()
	go func() {
		defer close(feed.out)
		var events chan fsnotify.Event
		if w, err := fsnotify.NewWatcher(); err == nil {
			defer func() { _ = w.Close() }()
			if w.Add(filepath.Dir(f.path)) == nil {
				events = w.Events
			}
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var seen os.FileInfo
		look := func() {
			info, err := os.Stat(f.path)
			if err == nil && seen != nil && os.SameFile(info, seen) && info.ModTime().Equal(seen.ModTime()) && feed.last.Err == nil {
				return
			}
			r, err := f.read()
			switch {
			case errors.Is(err, fs.ErrNotExist):
				seen = nil
				feed.missing()
			case err != nil:
				seen = nil
				feed.fail(err)
			default:
				seen = info
				feed.put(r)
			}
		}
		for look(); ; {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-events:
				if !ok {
					events = nil
				} else if e.Name == f.path {
					look()
				}
			case <-tick.C:
				look()
			}
		}
	}()
	return feed.out
}

// Lease implements Store. The lock on the file is the lease; ttl only says
// how long it is told to last.
func (f *File) Lease(_ context.Context, holder string, ttl time.Duration) (Tenure, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := f.path + ".lease"
	if ttl <= 0 {
		if f.lease != nil {
			_ = f.lease.Truncate(0)
			f.lease.Close()
			f.lease = nil
		}
		return Tenure{}, nil
	}
	until := time.Now().Add(ttl)
	if f.lease != nil {
		// Whoever deletes the file, or its directory, takes the lease away.
		info, err := os.Stat(path)
		if mine, err2 := f.lease.Stat(); err == nil && err2 == nil && os.SameFile(info, mine) {
			return Tenure{Held: true, Holder: holder, Until: until}, nil
		}
		f.lease.Close()
		f.lease = nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Tenure{}, fmt.Errorf("taking the lease: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if err != unix.EWOULDBLOCK {
			return Tenure{}, fmt.Errorf("taking the lease: locking %s: %w", path, err)
		}
		b, _ := io.ReadAll(io.LimitReader(file, 256))
		return Tenure{Holder: strings.TrimSpace(string(b))}, nil
	}
	_ = file.Truncate(0)
	_, _ = file.WriteAt([]byte(holder+"\n"), 0) // for people, and for Holder
	f.lease = file
	return Tenure{Held: true, Holder: holder, Until: until}, nil
}
