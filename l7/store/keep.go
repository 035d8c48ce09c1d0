package store

import (
	"context"
	"errors"
	"time"
)

// errSilent tells that a watch has not heard of its store yet.
var errSilent = errors.New("the store has not answered yet")

// patience is how long a watch waits for the store at its start before the
// copy serves.
const patience = time.Second

// Keep keeps a copy of the record of s in a file. A watch on what it returns
// tells the copy first where s does not answer within a second, with an error
// that says so; after that, whatever s tells.
func Keep(s Store, path string) Store {
	return kept{s, NewFile(path)}
}

type kept struct {
	Store
	copy *File
}

// Watch implements Store.
func (k kept) Watch(ctx context.Context) <-chan Update {
	in, feed := k.Store.Watch(ctx), newFeed()
	go func() {
		defer close(feed.out)
		last, copyErr := k.copy.read()
		serve := func(err error) {
			if copyErr == nil && !feed.told {
				feed.last.Record = last
			}
			feed.fail(err)
		}
		waited := time.NewTimer(patience)
		defer waited.Stop()
		for {
			select {
			case <-waited.C:
				if !feed.told {
					serve(errSilent)
				}
			case u, ok := <-in:
				switch {
				case !ok:
					return
				case u.Err != nil && u.Record.Version == 0 && len(u.Record.Slots) == 0:
					serve(u.Err)
				case u.Err != nil:
					feed.fail(u.Err)
				case u.Record.Version == 0 && len(u.Record.Slots) == 0 && copyErr == nil && last.Version != 0:
					// The store has nothing where it had something once.
					serve(ErrGone)
				default:
					if copyErr != nil || u.Record.Version != last.Version || !u.Record.Equal(last) {
						// A copy that cannot be written is one that is not
						// there at the next start; nothing else depends on it.
						last, copyErr = u.Record, k.copy.write(u.Record)
					}
					feed.put(u.Record)
				}
			}
		}
	}()
	return feed.out
}
