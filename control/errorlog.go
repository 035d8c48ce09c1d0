package control

import (
	"bytes"
	"log"
	"log/slog"
	"sync"
	"time"
)

const (
	// errorBurst lines of net/http's may follow each other, and errorEvery
	// passes from one to the next after that.
	errorBurst = 5
	errorEvery = time.Minute
)

// errorLog takes what net/http has to say on connections. A process without
// file descriptors makes it say so each second, for as long as somebody calls.
func errorLog(to *slog.Logger) *log.Logger { return log.New(&errorWriter{log: to}, "", 0) }

// errorWriter gets one line with each Write.
type errorWriter struct {
	log *slog.Logger

	mu     sync.Mutex
	used   float64
	at     time.Time
	untold int
}

// Write implements io.Writer.
func (w *errorWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.used = max(0, w.used-float64(now.Sub(w.at))/float64(errorEvery))
	w.at = now
	if w.used > errorBurst-1 {
		w.untold++
		return len(line), nil
	}
	w.used++
	var words []any
	if w.untold > 0 {
		words = []any{"untold", w.untold}
	}
	w.untold = 0
	w.log.Warn(string(bytes.TrimSpace(line)), words...)
	return len(line), nil
}
