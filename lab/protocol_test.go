package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	frames := &frameWriter{w: &b}
	long := bytes.Repeat([]byte("x"), 3*chunk+1)
	if n, err := (stream{frames, frameOutput}).Write(long); n != len(long) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if err := frames.write(frameInputEnd, nil); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		kind, payload, err := readFrame(&b)
		if err != nil {
			t.Fatal(err)
		}
		if kind == frameInputEnd {
			break
		}
		got = append(got, payload...)
	}
	if !bytes.Equal(got, long) {
		t.Errorf("%d octets arrived of %d, or others", len(got), len(long))
	}
	if _, _, err := readFrame(&b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

func TestFrameFaults(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"cut head", "o\x00", "reading a frame"},
		{"cut payload", "o\x00\x00\x00\x05ab", "reading a frame of 5 octets"},
		{"too long", "o\xff\xff\xff\xff", "4294967295 octets, not at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := readFrame(strings.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if err := (&frameWriter{w: io.Discard}).write(frameOutput, make([]byte, maxFrame+1)); err == nil {
		t.Error("a payload that is too long was written")
	}
}

// answer is the other side of a Do: it reads the request and leaves the rest
// to f.
func answer(t *testing.T, f func(Request, net.Conn, *frameWriter)) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		kind, payload, err := readFrame(theirs)
		if err != nil || kind != frameRequest {
			t.Errorf("first frame: %c, %v", kind, err)
			return
		}
		var req Request
		if err := json.Unmarshal(payload, &req); err != nil {
			t.Error(err)
		}
		f(req, theirs, &frameWriter{w: theirs})
	}()
	return ours
}

func TestDo(t *testing.T) {
	sent := Request{Verb: "exec", Args: []string{"LB4-1", "cat"}, Terminal: &Size{Rows: 24, Columns: 80}}
	conn := answer(t, func(req Request, conn net.Conn, frames *frameWriter) {
		if diff := cmp.Diff(sent, req); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		// An echo that answers a signal with its number.
		status := 0
		for {
			kind, payload, err := readFrame(conn)
			if err != nil {
				t.Error(err)
				return
			}
			switch kind {
			case frameInput:
				_ = frames.write(frameTaken, nil)
				_ = frames.write(frameOutput, payload)
			case frameSignal:
				status = int(payload[0])
			case frameInputEnd:
				_ = frames.write(frameError, []byte("end"))
			}
			if status != 0 && kind == frameInputEnd || kind == frameSignal {
				break
			}
		}
		_ = frames.writeJSON(frameExit, exit{Status: status})
	})
	// More than the window, so that credit must come back.
	input := strings.Repeat("0123456789abcdef", inputWindow*chunk/8)
	var out, stderr bytes.Buffer
	signals := make(chan syscall.Signal, 1)
	in := io.MultiReader(strings.NewReader(input), readerFunc(func([]byte) (int, error) {
		signals <- syscall.SIGTERM
		return 0, io.EOF
	}))
	status, err := Do(t.Context(), conn, sent, Terminal{In: in, Out: &out, Err: &stderr, Signals: signals})
	if err != nil || status != int(syscall.SIGTERM) {
		t.Errorf("status %d, %v", status, err)
	}
	if out.String() != input {
		t.Errorf("%d octets came back of %d, or others", out.Len(), len(input))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestDoFaults(t *testing.T) {
	t.Run("told", func(t *testing.T) {
		conn := answer(t, func(_ Request, conn net.Conn, frames *frameWriter) {
			go io.Copy(io.Discard, conn)
			_ = frames.writeJSON(frameExit, exit{Status: 1, Error: "no host is named X"})
		})
		status, err := Do(t.Context(), conn, Request{Verb: "logs"}, Terminal{Out: io.Discard, Err: io.Discard})
		if status != 1 || err == nil || err.Error() != "no host is named X" {
			t.Errorf("status %d, %v", status, err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		conn := answer(t, func(Request, net.Conn, *frameWriter) {})
		_, err := Do(t.Context(), conn, Request{Verb: "status"}, Terminal{Out: io.Discard, Err: io.Discard})
		if err == nil || err.Error() != "asking the lab to status: the lab is gone" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		conn := answer(t, func(_ Request, conn net.Conn, _ *frameWriter) { io.Copy(io.Discard, conn) })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := Do(ctx, conn, Request{Verb: "load"}, Terminal{Out: io.Discard, Err: io.Discard})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
