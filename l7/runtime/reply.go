package runtime

import (
	"errors"
	"fmt"
	"strings"
)

// What HAProxy's refusals mean, where a caller may want to tell them apart.
// An *Error unwraps to one of them.
var (
	// ErrNotFound: the back end, server, map or key does not exist.
	ErrNotFound = errors.New("not found")
	// ErrStaticWeight: the back end balances by a fixed table and takes no
	// weights but all and nothing.
	ErrStaticWeight = errors.New("static balancing")
	// ErrDenied: the socket's level is below admin.
	ErrDenied = errors.New("permission denied")
)

// meanings are found by the text, because HAProxy has no codes for them.
var meanings = []struct {
	text string
	err  error
}{
	{"No such server", ErrNotFound},
	{"No such backend", ErrNotFound},
	{"Can't find backend", ErrNotFound},
	{"Key not found", ErrNotFound},
	{"entry not found", ErrNotFound},
	{"Unknown map identifier", ErrNotFound},
	{"No such proxy", ErrNotFound},
	{"No such table", ErrNotFound},
	{"static LB algorithm", ErrStaticWeight},
	{"Permission denied", ErrDenied},
}

// Error is HAProxy's refusal of a command.
type Error struct {
	Command string
	// Severity is syslog's (RFC 5424 section 6.2.1): 3 is an error; -1 where
	// HAProxy did not say, as over a master socket.
	Severity int
	// Text is the first line of the reply, cut to 200 bytes and stripped of
	// control characters.
	Text string
}

// Error names the command and what HAProxy said to it.
func (e *Error) Error() string {
	return fmt.Sprintf("HAProxy refuses %q: %s", e.Command, e.Text)
}

// Unwrap is one of the errors above, or nil.
func (e *Error) Unwrap() error {
	for _, m := range meanings {
		if strings.Contains(e.Text, m.text) {
			return m.err
		}
	}
	return nil
}

// judge tells whether the reply means that the command was carried out. The
// severity alone does not: HAProxy answers an unknown command with 6, and over
// a master socket there is none. So a reply has to be one of those expected.
func (c Command) judge(reply string) error {
	severity, text := cutSeverity(strings.TrimSpace(reply))
	if severity < 0 || severity > 3 {
		if text == "" && len(c.want) == 0 {
			return nil
		}
		for _, w := range c.want {
			if strings.HasPrefix(text, w) {
				return nil
			}
		}
	}
	return c.refused(severity, text)
}

// refused makes an Error of an unwelcome reply.
func (c Command) refused(severity int, text string) error {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	if len(text) > 200 {
		text = text[:200]
	}
	if text == "" {
		text = "(an empty reply)"
	}
	return &Error{Command: c.line, Severity: severity, Text: text}
}

// cutSeverity takes "[3]: " off a reply, which "set severity-output number"
// puts there; -1 where there is none.
func cutSeverity(reply string) (severity int, text string) {
	if len(reply) >= 4 && reply[0] == '[' && '0' <= reply[1] && reply[1] <= '7' && reply[2:4] == "]:" {
		return int(reply[1] - '0'), strings.TrimSpace(reply[4:])
	}
	return -1, reply
}
