package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/creack/pty"
)

// Server answers requests for one lab, which the request "up" brings up.
type server struct {
	bin  string
	down context.CancelFunc

	mu     sync.Mutex
	lab    *Lab
	coming bool // an up is under way
}

// Serve answers what commands ask over the connections that l accepts, until
// one asks for the end, ctx ends or l fails. The lab that it brought up is
// closed then. bin is as in Options.
func Serve(ctx context.Context, l net.Listener, bin string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{bin: bin, down: cancel}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var requests sync.WaitGroup
	var failed error
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				failed = fmt.Errorf("accepting a request: %w", err)
			}
			break
		}
		requests.Go(func() { s.serve(ctx, conn) })
	}
	cancel()
	requests.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lab != nil {
		failed = errors.Join(failed, s.lab.Close())
	}
	return failed
}

// session is one request under way.
type session struct {
	Request
	in      io.Reader
	out     io.Writer
	err     io.Writer
	resize  chan pty.Winsize
	signals chan syscall.Signal
}

func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	kind, payload, err := readFrame(conn)
	if err != nil || kind != frameRequest {
		return // Whoever it was did not stay, or is no command of ours.
	}
	frames := &frameWriter{w: conn}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	input := make(chan []byte, inputWindow)
	in, taken := io.Pipe()
	defer in.Close()
	go func() {
		for b := range input {
			if _, err := taken.Write(b); err != nil || frames.write(frameTaken, nil) != nil {
				break
			}
		}
		taken.Close()
	}()
	ses := &session{
		in:      in,
		out:     stream{frames, frameOutput},
		err:     stream{frames, frameError},
		resize:  make(chan pty.Winsize, 1),
		signals: make(chan syscall.Signal, 8),
	}
	go func() {
		defer cancel() // The command is gone, and with it the request.
		receive(conn, input, ses)
	}()
	var x exit
	if err := json.Unmarshal(payload, &ses.Request); err != nil {
		x = exit{Status: 2, Error: fmt.Sprintf("reading the request: %v", err)}
	} else if x.Status, err = s.handle(ctx, ses); err != nil {
		x.Error = err.Error()
		if x.Status <= 0 {
			x.Status = 1
		}
	}
	_ = frames.writeJSON(frameExit, x)
	if ses.Verb == "down" {
		s.down()
	}
}

// receive takes the frames that follow the request, until the stream ends. It
// never waits for anything else, so that signals and the end come through.
func receive(conn net.Conn, input chan<- []byte, ses *session) {
	ended := false
	end := func() {
		if !ended {
			close(input)
		}
		ended = true
	}
	defer end()
	for {
		kind, payload, err := readFrame(conn)
		if err != nil {
			return
		}
		switch kind {
		case frameInput:
			if ended {
				continue
			}
			select {
			case input <- payload:
			default:
				return // More than was taken: no command of ours.
			}
		case frameInputEnd:
			end()
		case frameResize:
			var size Size
			if json.Unmarshal(payload, &size) == nil {
				// Only the last size is of use.
				select {
				case <-ses.resize:
				default:
				}
				ses.resize <- winsize(size)
			}
		case frameSignal:
			if len(payload) == 1 {
				select {
				case ses.signals <- syscall.Signal(payload[0]):
				default: // Eight wait already.
				}
			}
		}
	}
}

func winsize(s Size) pty.Winsize {
	return pty.Winsize{Rows: uint16(s.Rows), Cols: uint16(s.Columns)}
}

// handle does what is asked and returns the exit status.
func (s *server) handle(ctx context.Context, ses *session) (int, error) {
	switch ses.Verb {
	case "up":
		return 0, s.up(ctx, ses)
	case "down", "hello":
		return 0, nil
	}
	s.mu.Lock()
	l := s.lab
	s.mu.Unlock()
	if l == nil {
		return 1, errors.New("the lab is not up yet")
	}
	if ses.Verb != "exec" {
		ctx = untilSignal(ctx, ses.signals)
	}
	switch ses.Verb {
	case "exec":
		return s.exec(ctx, l, ses)
	case "status":
		return 0, l.writeStatus(ses.out, ses.JSON)
	case "logs":
		return 0, l.writeLogs(ses.out, ses.Args)
	case "start", "stop", "restart", "kill":
		return 0, l.control(ses.Verb, ses.Args, syscall.Signal(ses.Signal))
	case "load":
		return l.load(ctx, ses)
	case "run":
		return l.scenario(ctx, ses)
	case "try":
		return l.trial(ctx, ses)
	}
	return 2, fmt.Errorf("%q is not known", ses.Verb)
}

// untilSignal ends the context at the first signal of the other side, so
// that what is under way can still say how it went.
func untilSignal(ctx context.Context, signals <-chan syscall.Signal) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-signals:
		case <-ctx.Done():
		}
	}()
	return ctx
}

func (s *server) up(ctx context.Context, ses *session) error {
	if ses.Up == nil {
		return errors.New("what lab to bring up is not said")
	}
	s.mu.Lock()
	if s.lab != nil || s.coming {
		s.mu.Unlock()
		return errors.New("the lab is up already")
	}
	s.coming = true
	s.mu.Unlock()
	l, err := Up(untilSignal(ctx, ses.signals), Options{
		Sizes: ses.Up.Sizes, Reflector: ses.Up.Reflector, Balancer: ses.Up.Balancer, Pool: ses.Up.Pool, Bin: s.bin, Progress: ses.out, Elapsed: ses.Elapsed,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lab, s.coming = l, false
	return err
}

func (s *server) exec(ctx context.Context, l *Lab, ses *session) (int, error) {
	if len(ses.Args) == 0 {
		return 2, errors.New("exec needs a host")
	}
	host, argv := ses.Args[0], ses.Args[1:]
	if len(argv) == 0 {
		argv = []string{shell()}
	}
	stdio := Stdio{In: ses.in, Out: ses.out, Err: ses.err, Signals: ses.signals, Env: ses.Env}
	if ses.Terminal != nil {
		size := winsize(*ses.Terminal)
		stdio.Terminal, stdio.Resize = &size, ses.resize
	}
	return l.ExecStream(ctx, host, argv, stdio)
}

// shell is what exec runs where no command is given.
func shell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}
