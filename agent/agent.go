// Package agent answers HAProxy's agent checks out of a file, as a daemon would
// that knew about the host's maintenance: whoever may write the file says which
// state HAProxy shall give to this server.
//
// HAProxy connects, reads one line and closes (configuration manual, section
// 5.2, "agent-check"). What it does not understand it ignores, and the server
// stays as it is, in silence. So the line is made here from words that were
// understood, always ends with a newline, and content that cannot be understood
// is answered with what was last good, told in the log and shown by Status.
//
// # What the file may say
//
//	drain # new disk
//
// One line of words separated by blanks or commas, in any case; what follows a
// sharp is the reason. Empty lines and lines that begin with a sharp are
// comments. The words are of four classes, at most one of each:
//
//	up; down, stopped, fail      the operational state
//	ready; drain; maint          the administrative state
//	75%                          the weight, of the one in HAProxy's configuration
//	maxconn:100                  the most connections at a time
//
// HAProxy leaves alone what an answer does not mention: after "drain", "up" does
// not bring a server back, and after "down", "ready" does not. So the classes
// that the file leaves out are filled in from Options.Default, which is also the
// answer where there is no file.
package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultAnswer brings a server back from whatever the file said before
	// about its state. It has no weight in it: a weight of 100% would undo one
	// that was set through HAProxy's Runtime API.
	DefaultAnswer = "up ready"
	// DefaultMaxConnections is one for each of a thousand HAProxy processes.
	DefaultMaxConnections = 1024
	// DefaultTimeout is the agent-inter of HAProxy's own defaults: who has not
	// taken the answer by then has asked again.
	DefaultTimeout = 2 * time.Second
)

// Options say what to answer, and where.
type Options struct {
	// File is the path of the file. It need not exist.
	File string
	// Listen are the addresses to listen on. An address that the host does not
	// have yet will do (IP_FREEBIND), and port 0 is any free port. 0.0.0.0 and
	// [::] are two listeners: neither serves the other's family.
	Listen []netip.AddrPort
	// Default is the answer where there is no file, and fills in what the file
	// leaves out. DefaultAnswer where it is empty. "up" lets a drain that was
	// set through HAProxy's Runtime API stand, but brings no server back that
	// the file had drained.
	Default string
	// MaxConnections is how many connections may be held at a time;
	// DefaultMaxConnections where it is 0. More are answered as well, without
	// waiting for them to take the answer.
	MaxConnections int
	// Timeout is how long a connection may take; DefaultTimeout where it is 0.
	Timeout time.Duration
}

// Source tells where an answer came from.
type Source string

// The sources of an answer.
const (
	FromFile     Source = "file"
	FromDefault  Source = "default"   // there is no file
	FromLastGood Source = "last good" // the file is not understood
	// FromNothing: the file was not understood since the start. The answer is
	// an empty line, at which HAProxy leaves everything as it is.
	FromNothing Source = "nothing"
)

// Status is what is answered at the moment, as of the last question or look.
type Status struct {
	File string
	// Answer is the line without its newline.
	Answer string
	Source Source
	Since  time.Time // of Answer and Source
	// Fault says why the file is not understood; nil where it is.
	Fault error
	// Listen are the addresses in use, with their true ports, in the order of
	// Options.Listen.
	Listen []netip.AddrPort
	// Questions counts connections that were answered since the start; Faults
	// those of them that got another answer than the file's for Fault.
	Questions, Faults uint64
	// Hurried counts those beyond Options.MaxConnections; Open those held now.
	Hurried uint64
	Open    int
}

// Server answers agent checks. Its methods may be called at the same time.
type Server struct {
	log *slog.Logger

	mu        sync.Mutex
	options   Options
	fallback  Answer // Options.Default, parsed
	listeners []*listener
	status    Status
	lastGood  string
	known     bool   // lastGood was answered by this process, or would have been
	faultText string // of the last warning
	closed    bool
	conns     map[net.Conn]struct{}
	done      sync.WaitGroup
}

// New opens the listeners and answers from now on. It returns an error, and
// listens nowhere, where an option is wrong or an address cannot be listened on.
func New(o Options, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, conns: make(map[net.Conn]struct{})}
	if err := s.Reload(o); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload changes the options. Listeners that stay are not closed for a moment;
// on an error nothing has changed.
func (s *Server) Reload(o Options) error {
	o, fallback, err := complete(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("reloading the agent: it is closed")
	}
	kept, opened, err := s.listen(o.Listen)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	var stale []*listener
	for _, l := range s.listeners {
		if !slices.Contains(kept, l) {
			stale = append(stale, l)
		}
	}
	if o.File != s.options.File {
		// What another file said is nobody's last good answer.
		s.lastGood, s.known, s.faultText = "", false, ""
		s.status.Fault = nil
	}
	s.options, s.fallback, s.listeners = o, fallback, kept
	s.status.File = o.File
	for _, l := range opened {
		s.done.Go(func() { s.accept(l) })
	}
	s.mu.Unlock()
	for _, l := range stale {
		l.Close()
	}
	s.answer(false)
	return nil
}

// Status looks at the file and tells what would be answered.
func (s *Server) Status() Status {
	s.answer(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Open = len(s.conns)
	for _, l := range s.listeners {
		st.Listen = append(st.Listen, l.address)
	}
	return st
}

// Close stops listening, cuts off who is still connected, and returns when
// nothing of the server runs any more.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners {
		l.Close()
	}
	s.listeners = nil
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return nil
}

// complete fills the defaults in and tells what is wrong.
func complete(o Options) (Options, Answer, error) {
	if o.File == "" {
		return o, Answer{}, errors.New("agent check: no file is named")
	}
	if len(o.Listen) == 0 {
		return o, Answer{}, errors.New("agent check: no address to listen on is named")
	}
	o.Listen = slices.Clone(o.Listen)
	for i, a := range o.Listen {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		o.Listen[i] = a
		if !a.Addr().IsValid() {
			return o, Answer{}, fmt.Errorf("agent check: %q is no address to listen on", a)
		}
		if a.Port() != 0 && slices.Contains(o.Listen[:i], a) {
			return o, Answer{}, fmt.Errorf("agent check: %s is named twice", a)
		}
	}
	if o.Default == "" {
		o.Default = DefaultAnswer
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	fallback, err := Parse([]byte(o.Default))
	if err != nil {
		return o, Answer{}, fmt.Errorf("agent check: default %q: %w", o.Default, err)
	}
	return o, fallback, nil
}

// answer looks at the file and returns the line to answer, newline included. It
// tells the log where something has changed.
func (s *Server) answer(asked bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Under the lock, so that an older look never overrides a newer one. It is
	// a local file of at most maxFile bytes.
	found, err := Read(s.options.File)
	line, source := "", FromFile
	switch {
	case errors.Is(err, ErrNoFile):
		line, source, err = s.fallback.String(), FromDefault, nil
	case err == nil:
		line = found.over(s.fallback).String()
	case s.known:
		line, source = s.lastGood, FromLastGood
	default:
		source = FromNothing
	}
	if err == nil {
		s.lastGood, s.known = line, true
	}
	if asked {
		s.status.Questions++
		if err != nil {
			s.status.Faults++
		}
	}
	if line != s.status.Answer || source != s.status.Source {
		if s.status.Source != "" && line != s.status.Answer {
			s.log.Info("agent check answers anew", "answer", line, "was", s.status.Answer, "from", source)
		}
		s.status.Answer, s.status.Source, s.status.Since = line, source, time.Now()
	}
	s.status.Fault = err
	switch text := faultText(err); {
	case text == s.faultText:
	case err != nil:
		s.log.Warn("agent check file is not understood", "file", s.options.File, "error", err, "answer", line, "from", source)
		s.faultText = text
	default:
		s.log.Info("agent check file is understood again", "file", s.options.File, "answer", line)
		s.faultText = text
	}
	return line + "\n"
}

func faultText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
