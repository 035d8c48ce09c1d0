package kernel

import (
	"errors"
	"io"
	"strings"
	"sync"
)

// tailSize is how much of the console an error quotes.
const tailSize = 2048

// tail passes on what is written and keeps the end of it.
type tail struct {
	mu   sync.Mutex
	last []byte
	next io.Writer
}

// Write never fails: a console that cannot be shown must not stop a kernel.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	if t.next != nil {
		_, _ = t.next.Write(b)
	}
	return len(b), nil
}

// lastWords is the kept text as an error, nil where there is none.
func (t *tail) lastWords() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.TrimSpace(string(t.last))
	if s == "" {
		return nil
	}
	return errors.New("the console ended with:\n" + s)
}

// locked lets several goroutines write to one writer, a piece at a time.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
