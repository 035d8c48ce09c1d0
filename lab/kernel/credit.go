package kernel

import (
	"io"
	"os"
	"sync"
)

// A serial line of User-Mode Linux stops for good once its reader has fallen
// behind: the terminal throttles the line, the driver takes the host's
// descriptor out of its interrupts (line_throttle in arch/um/drivers/line.c),
// and unthrottling reads what is there but puts nothing back. So the host
// never sends more than the terminal can hold unread: the machine gives a
// credit for each creditSize bytes that it has read, on a line of its own.
const (
	creditSize = 512
	// creditCount times creditSize stays well below the 4096 bytes
	// (N_TTY_BUF_SIZE) at whose end the throttle is.
	creditCount = 5
)

// creditWriter is the host's end: it sends only what is allowed.
type creditWriter struct {
	io.ReadWriteCloser // the line

	mu    sync.Mutex
	more  sync.Cond
	left  int  // bytes that may be sent
	ended bool // no credit will come
}

func newCreditWriter(line, credit *os.File) *creditWriter {
	w := &creditWriter{ReadWriteCloser: line, left: creditCount * creditSize}
	w.more.L = &w.mu
	go w.collect(credit)
	return w
}

// collect adds up what the machine allows, until the line ends.
func (w *creditWriter) collect(credit *os.File) {
	buf := make([]byte, 64)
	for {
		n, err := credit.Read(buf)
		w.mu.Lock()
		w.left += n * creditSize
		w.ended = err != nil
		w.more.Broadcast()
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Write sends b in the pieces that are allowed. It fails with io.ErrClosedPipe
// when the machine is gone.
func (w *creditWriter) Write(b []byte) (sent int, err error) {
	for len(b) > 0 {
		n, err := w.ReadWriteCloser.Write(b[:w.take(len(b))])
		sent += n
		if err != nil {
			return sent, err
		}
		if n == 0 {
			return sent, io.ErrClosedPipe
		}
		b = b[n:]
	}
	return sent, nil
}

// take waits until something may be sent, and takes up to want of it.
func (w *creditWriter) take(want int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left == 0 && !w.ended {
		w.more.Wait()
	}
	if w.ended {
		return 0
	}
	n := min(want, w.left)
	w.left -= n
	return n
}

// creditReader is the machine's end: it gives credit for what it has read.
type creditReader struct {
	io.ReadWriteCloser // the line
	credit             *os.File
	read               int // bytes for which no credit has been given
}

// Read is for one goroutine at a time.
func (r *creditReader) Read(b []byte) (int, error) {
	n, err := r.ReadWriteCloser.Read(b)
	r.read += n
	if c := r.read / creditSize; c > 0 && err == nil {
		r.read %= creditSize
		_, err = r.credit.Write(make([]byte, c))
	}
	return n, err
}
