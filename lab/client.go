package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Request is what a command asks of a lab.
type Request struct {
	// Verb is hello (which only waits for the lab's server), up, down,
	// status, exec, logs, start, stop, restart, kill, load, run or try.
	Verb string `json:"verb"`
	// Args are the verb's: a host, a process, a command.
	Args []string `json:"args,omitempty"`
	// Up says what lab to bring up.
	Up *UpRequest `json:"up,omitempty"`
	// Load says what load to put on it.
	Load *LoadRequest `json:"load,omitempty"`
	// Try says how to put the balancer through its trials.
	Try *TryRequest `json:"try,omitempty"`
	// Signal is what kill sends.
	Signal int `json:"signal,omitempty"`
	// Elapsed is the time already spent, from which what is told counts.
	Elapsed time.Duration `json:"elapsed_ns,omitempty"`
	// JSON asks for an answer for machines.
	JSON bool `json:"json,omitempty"`
	// Terminal is the size of the terminal on the other end; nil where that
	// is none.
	Terminal *Size `json:"terminal,omitempty"`
	// Env is added to the environment of a command.
	Env []string `json:"env,omitempty"`
}

// UpRequest is the part of Options that a command chooses.
type UpRequest struct {
	Sizes     Sizes     `json:"sizes"`
	Reflector Reflector `json:"reflector"`
	Balancer  Balancer  `json:"balancer,omitempty"`
	Pool      Pool      `json:"pool,omitzero"`
}

// TryRequest says how to put the balancer through its trials.
type TryRequest struct {
	// Flows are the downloads in flight, from as many addresses.
	Flows int `json:"flows"`
	// Seed makes the random history.
	Seed uint64 `json:"seed"`
	// Only are the names of the events to play; all where empty.
	Only []string `json:"only,omitempty"`
}

// LoadRequest says what load to put on the lab.
type LoadRequest struct {
	// VIPs to send to; all where empty.
	VIPs []netip.Addr `json:"vips,omitempty"`
	// Slow downloads are in flight at a time, of SlowFor each.
	Slow    int           `json:"slow"`
	SlowFor time.Duration `json:"slow_for_ns"`
	// Rate is how many quick requests start a second.
	Rate float64 `json:"rate"`
	// For is how long; 0: until interrupted.
	For time.Duration `json:"for_ns"`
}

// Size is a terminal's, in characters.
type Size struct {
	Rows    int `json:"rows"`
	Columns int `json:"columns"`
}

// Terminal is what a command connects a request to.
type Terminal struct {
	In       io.Reader // nil: no input
	Out, Err io.Writer
	// Resize and Signals are passed on as they come; nil: none do.
	Resize  <-chan Size
	Signals <-chan syscall.Signal
}

// Do sends a request over a connection to a lab, connects the terminal to it
// and returns the exit status. It closes the connection, at once when ctx
// ends.
func Do(ctx context.Context, conn net.Conn, req Request, t Terminal) (int, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	frames := &frameWriter{w: conn}
	if err := frames.writeJSON(frameRequest, req); err != nil {
		return -1, fmt.Errorf("asking the lab to %s: %w", req.Verb, err)
	}
	done := make(chan struct{})
	defer close(done)
	credit := make(chan struct{}, inputWindow)
	for range inputWindow {
		credit <- struct{}{}
	}
	// Reading input cannot be interrupted, so this may outlive the call.
	go sendInput(frames, t.In, credit, done)
	go func() {
		for {
			var err error
			select {
			case size := <-t.Resize:
				err = frames.writeJSON(frameResize, size)
			case sig := <-t.Signals:
				err = frames.write(frameSignal, []byte{byte(sig)})
			case <-done:
				return
			}
			if err != nil {
				return // The reader below sees the same end.
			}
		}
	}()
	for {
		kind, payload, err := readFrame(conn)
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the lab is gone")
			}
			return -1, fmt.Errorf("asking the lab to %s: %w", req.Verb, err)
		}
		switch kind {
		case frameOutput:
			_, err = t.Out.Write(payload)
		case frameError:
			_, err = t.Err.Write(payload)
		case frameTaken:
			select {
			case credit <- struct{}{}:
			default: // More was taken than sent: a fault of the other side.
			}
		case frameExit:
			var x exit
			if err := json.Unmarshal(payload, &x); err != nil {
				return -1, fmt.Errorf("reading how it ended: %w", err)
			}
			if x.Error != "" {
				return x.Status, errors.New(x.Error)
			}
			return x.Status, nil
		}
		if err != nil {
			return -1, fmt.Errorf("writing what the lab said: %w", err)
		}
	}
}

// sendInput passes input on until its end, no faster than it is taken.
func sendInput(frames *frameWriter, in io.Reader, credit <-chan struct{}, done <-chan struct{}) {
	buf := make([]byte, chunk)
	for in != nil {
		select {
		case <-credit:
		case <-done:
			return
		}
		n, err := in.Read(buf)
		if n > 0 {
			if frames.write(frameInput, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	_ = frames.write(frameInputEnd, nil)
}
