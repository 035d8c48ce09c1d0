package lab

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// The protocol between a command and a lab: one stream carries one request,
// in frames of a kind (one octet), a length (four, big-endian) and a payload.
// The command sends a request frame first, then input, sizes and signals as
// they come; the lab sends output, and an exit frame last. Input is sent only as
// it is taken, so that signals never wait behind it. Whoever closes the
// stream early ends the request. It is the same on the unix socket and inside
// the machine, so what lies between only copies octets.

// frameKind is what a frame carries.
type frameKind byte

const (
	frameRequest  frameKind = 'r' // JSON of Request
	frameInput    frameKind = 'i' // standard input
	frameInputEnd frameKind = 'e' // its end; no payload
	frameResize   frameKind = 'w' // JSON of a terminal's size
	frameSignal   frameKind = 's' // one octet: a signal's number
	frameOutput   frameKind = 'o' // standard output
	frameError    frameKind = 'E' // standard error
	frameTaken    frameKind = 't' // one frame of input was taken; no payload
	frameExit     frameKind = 'x' // JSON of exit
)

// maxFrame bounds a payload; a longer one is a fault of the other side.
const maxFrame = 1 << 20

// chunk is how much of a stream one frame carries.
const chunk = 32 << 10

// inputWindow is how many frames of input may be sent and not yet taken.
const inputWindow = 4

// exit ends a request.
type exit struct {
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
}

// frameWriter writes whole frames, from several goroutines.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(kind frameKind, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("writing a frame: %d octets, not at most %d", len(payload), maxFrame)
	}
	b := make([]byte, 5, 5+len(payload))
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(append(b, payload...)); err != nil {
		return fmt.Errorf("writing a frame: %w", err)
	}
	return nil
}

func (f *frameWriter) writeJSON(kind frameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a frame: %w", err)
	}
	return f.write(kind, b)
}

// readFrame reads one frame. At the end of the stream the error is io.EOF.
func readFrame(r io.Reader) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if err == io.EOF {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("reading a frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("reading a frame: %d octets, not at most %d", n, maxFrame)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("reading a frame of %d octets: %w", n, err)
	}
	return frameKind(head[0]), payload, nil
}

// stream is one direction of a command's output, as an io.Writer.
type stream struct {
	frames *frameWriter
	kind   frameKind
}

// Write implements io.Writer.
func (s stream) Write(b []byte) (int, error) {
	done := 0
	for len(b) > 0 {
		part := b[:min(len(b), chunk)]
		if err := s.frames.write(s.kind, part); err != nil {
			return done, err
		}
		done += len(part)
		b = b[len(part):]
	}
	return done, nil
}
