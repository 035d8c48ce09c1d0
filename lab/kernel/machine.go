package kernel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Kind is what a machine is made of.
type Kind int

// The kinds of machine.
const (
	// Auto is Namespaces where [Own] finds nothing missing, else UserMode.
	Auto Kind = iota
	// Namespaces isolates processes on this machine's own kernel.
	Namespaces
	// UserMode boots a User-Mode Linux kernel.
	UserMode
)

// String names the kind for logs.
func (k Kind) String() string {
	switch k {
	case Namespaces:
		return "namespaces"
	case UserMode:
		return "user-mode linux"
	}
	return "auto"
}

const (
	// bootTimeout bounds the time to the first word of process 1, which takes
	// half a second on idle processors, and some on busy ones.
	bootTimeout = 60 * time.Second
	// stopGrace is how long a command may take to end after TERM.
	stopGrace = 5 * time.Second
	// defaultMemory is enough for any test and for a lab of thirty hosts.
	defaultMemory = 1024
)

// Options say what to run inside a machine. Only Command is required.
type Options struct {
	Kind Kind
	// Memory of a UserMode machine, in MiB; 1024 where 0. The host gives
	// what is touched, not what is granted.
	Memory int
	// Command is the program and its arguments, run inside as root; the
	// machine lives as long as it does. A name without a slash is looked
	// for inside, along PATH.
	Command []string
	// Env replaces this process's environment where not nil. PATH gains
	// the sbin directories, TMPDIR is set to a tmpfs.
	Env []string
	// Dir is the working directory; this process's own where empty.
	Dir string
	// Hostname inside; "lab" where empty.
	Hostname string
	// Tmpfs names directories that are replaced by an empty tmpfs inside,
	// beside /run; one that does not exist is an error.
	Tmpfs []string
	// Stdout and Stderr get what the command writes, as it comes; nil
	// discards it. Standard input is /dev/null.
	Stdout, Stderr io.Writer
	// Console gets what the kernel and process 1 say; nil discards it. The
	// end of it is part of the error when a machine dies.
	Console io.Writer
}

// Machine is a booted machine. Its methods may be called from any goroutine.
type Machine struct {
	kind    Kind
	cmd     *exec.Cmd
	dir     string // holds what the machine needs to start; process 1 removes it
	memory  string // where a guest kernel's memory file goes
	control *os.File
	session *yamux.Session
	console *tail
	output  sync.WaitGroup // the copies of stdout and stderr

	kill sync.Once
	done chan struct{} // closed when nothing of the machine is left
	code int           // valid after done
	err  error         // likewise
}

// Boot starts a machine and its command, and returns when process 1 has taken
// over. When ctx ends, the machine is stopped as by Close; the error then is
// ctx's own. It needs root.
func Boot(ctx context.Context, o Options) (*Machine, error) {
	if err := requireRoot(); err != nil {
		return nil, err
	}
	if len(o.Command) == 0 {
		return nil, errors.New("booting a machine: no command to run in it")
	}
	if o.Kind == Auto {
		o.Kind = UserMode
		if Own(ctx) == nil {
			o.Kind = Namespaces
		}
	}
	if o.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("booting a machine: finding the working directory: %w", err)
		}
		o.Dir = dir
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Hostname == "" {
		o.Hostname = "lab"
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	m, err := boot(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("booting a machine (%s): %w", o.Kind, err)
	}
	return m, nil
}

func boot(ctx context.Context, o Options) (*Machine, error) {
	m := &Machine{kind: o.Kind, console: &tail{next: o.Console}, done: make(chan struct{})}
	host, guest, err := openLines()
	if err != nil {
		return nil, err
	}
	m.control = host[lineControl]
	var streams io.ReadWriteCloser = host[lineStreams]
	if o.Kind == UserMode {
		streams = newCreditWriter(host[lineStreams], host[lineCredit])
	}
	session, err := yamux.Client(streams, sessionConfig())
	if err != nil {
		closeAll(host[:])
		closeAll(guest[:])
		return nil, fmt.Errorf("opening the stream session: %w", err)
	}
	m.session = session

	err = m.start(o, guest[:])
	closeAll(guest[:]) // The machine has its own copies; its end must be an end of file here.
	if err != nil {
		session.Close()
		closeAll(host[:])
		return nil, err
	}
	both := new(sync.Mutex) // Stdout and Stderr may be the same writer.
	for i, w := range map[int]io.Writer{lineStdout: o.Stdout, lineStderr: o.Stderr} {
		if w == nil {
			w = io.Discard
		}
		w = locked{both, w}
		m.output.Go(func() {
			_, _ = io.Copy(w, host[i])
			// A writer that fails must not block the command.
			_, _ = io.Copy(io.Discard, host[i])
		})
	}

	words := bufio.NewReaderSize(m.control, 4096)
	if err := m.handshake(ctx, words); err != nil {
		m.destroy()
		m.release()
		closeAll(host[:])
		close(m.done)
		return nil, errors.Join(err, m.console.lastWords())
	}
	stop := context.AfterFunc(ctx, func() { m.Close() })
	go func() {
		m.finish(words)
		if ctx.Err() != nil {
			m.err = ctx.Err()
		}
		stop()
		closeAll(host[:])
		close(m.done)
	}()
	return m, nil
}

// handshake waits for process 1 to say that its lines are raw, since what is
// sent before would be echoed and rewritten.
func (m *Machine) handshake(ctx context.Context, words *bufio.Reader) error {
	stop := context.AfterFunc(ctx, func() { m.control.SetReadDeadline(time.Now()) })
	defer stop()
	m.control.SetReadDeadline(time.Now().Add(bootTimeout))
	word, err := readWord(words)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("waiting for process 1: %w", err)
	}
	if word != wordReady {
		return fmt.Errorf("waiting for process 1: it said %q", word)
	}
	m.control.SetReadDeadline(time.Time{})
	return nil
}

var errDied = errors.New("the machine died before its command ended")

// finish reads the command's end from process 1, then waits until nothing is
// left of the machine.
func (m *Machine) finish(words *bufio.Reader) {
	word, err := readWord(words)
	verb, rest, _ := strings.Cut(word, " ")
	switch {
	case err != nil:
		m.code, m.err = -1, errDied
	case verb == wordExit:
		m.code, m.err = parseExit(rest)
	case verb == wordFail:
		m.code, m.err = -1, errors.New(rest)
	default:
		m.code, m.err = -1, fmt.Errorf("process 1 said %q", word)
	}
	// Process 1 takes the machine down now; where it hangs, it is killed.
	timer := time.AfterFunc(stopGrace, m.destroy)
	defer timer.Stop()
	m.release()
	if errors.Is(m.err, errDied) {
		m.err = errors.Join(errDied, m.console.lastWords()) // which all have come now
	}
}

// release waits for the machine's end and removes what the host keeps for it.
func (m *Machine) release() {
	m.output.Wait()
	_ = m.cmd.Wait() // The status of the kernel itself says nothing.
	m.session.Close()
	os.RemoveAll(m.dir)
}

func parseExit(s string) (int, error) {
	code, err := strconv.Atoi(s)
	if err != nil {
		return -1, fmt.Errorf("reading the exit status: %w", err)
	}
	return code, nil
}

// Kind tells what the machine is made of.
func (m *Machine) Kind() Kind { return m.kind }

// Dial opens a stream to the command, which accepts it from [Listen]. It
// does not wait for that; a stream that nobody accepts fails when used. The
// stream's Close ends both directions. In a UserMode machine it carries tens of MB/s
// to the host and 0.8 MB/s to the command.
func (m *Machine) Dial() (net.Conn, error) {
	c, err := m.session.Open()
	if err != nil {
		return nil, fmt.Errorf("opening a stream to the machine: %w", err)
	}
	return c, nil
}

// Wait returns the command's exit status (128 + N where signal N ended it)
// when nothing of the machine is left. The error is not nil where the command
// could not be started or the machine died first; the status is then -1.
func (m *Machine) Wait() (int, error) {
	<-m.done
	return m.code, m.err
}

// Close sends TERM to the command, gives it five seconds, kills what is left
// and waits until all is gone. It may be called many times. How the command
// ended is Wait's to tell.
func (m *Machine) Close() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	_, err := io.WriteString(m.control, wordTerm+"\n")
	timer := time.AfterFunc(stopGrace, m.destroy)
	defer timer.Stop()
	if err != nil {
		m.destroy() // Nobody hears.
	}
	<-m.done
	return nil
}
