package discovery

import (
	"sync"
	"time"
)

// saveAgain is how long after a failed write the next is tried: the disk is
// full, or read-only, and seldom gets better by itself.
const saveAgain = 10 * time.Second

// saver writes lists in the background, because a slow disk must not hold up the
// news of a change. Of several lists for one file only the latest is written.
type saver struct {
	done func(backend string, err error)
	wake chan struct{}
	quit func() // once or more
	over <-chan struct{}
	gone chan struct{}

	mu      sync.Mutex
	pending map[string]unsaved // by path
}

// unsaved is a list that waits to be written.
type unsaved struct {
	backend string
	list    List
}

// newSaver starts a saver that calls done after each attempt.
func newSaver(done func(backend string, err error)) *saver {
	over := make(chan struct{})
	s := &saver{
		done:    done,
		wake:    make(chan struct{}, 1),
		quit:    sync.OnceFunc(func() { close(over) }),
		over:    over,
		gone:    make(chan struct{}),
		pending: make(map[string]unsaved),
	}
	go s.run()
	return s
}

// keep has list written to path soon.
func (s *saver) keep(path, backend string, list List) {
	s.mu.Lock()
	s.pending[path] = unsaved{backend, list}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already and will find this too
	}
}

// close writes what is pending, once, and returns when that is done.
func (s *saver) close() {
	s.quit()
	<-s.gone
}

func (s *saver) run() {
	defer close(s.gone)
	retry := time.NewTimer(0)
	retry.Stop()
	for {
		select {
		case <-s.over:
			s.flush()
			return
		case <-s.wake:
		case <-retry.C:
		}
		if s.flush() {
			retry.Stop()
		} else {
			retry.Reset(saveAgain)
		}
	}
}

// flush writes all that is pending. It reports whether nothing failed; what did
// stays pending, unless a newer list came meanwhile.
func (s *saver) flush() bool {
	s.mu.Lock()
	batch := s.pending
	s.pending = make(map[string]unsaved, len(batch))
	s.mu.Unlock()
	whole := true
	for path, u := range batch {
		err := save(path, u.list)
		s.done(u.backend, err)
		if err == nil {
			continue
		}
		whole = false
		s.mu.Lock()
		if _, newer := s.pending[path]; !newer {
			s.pending[path] = u
		}
		s.mu.Unlock()
	}
	return whole
}
