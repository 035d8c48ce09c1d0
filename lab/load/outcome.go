package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Outcome is what became of a request.
type Outcome int

// The outcomes. Those from Refused to Wrong are broken: a user saw them.
const (
	// Completed: the expected status, and the whole body as it should be.
	Completed Outcome = iota
	// Refused: the handshake was answered with a reset, or an ICMP port unreachable.
	Refused
	// Reset: the connection was reset after the handshake.
	Reset
	// Stalled: no byte came for Options.StallTimeout, or the whole took
	// longer than Options.Timeout.
	Stalled
	// ConnectTimeout: the handshake was not answered in Options.ConnectTimeout.
	ConnectTimeout
	// Unreachable: the network answered that there is no way.
	Unreachable
	// Wrong: another status than 200, a body cut short or changed, or no HTTP.
	Wrong
	// Local: this host could not send, for want of a port, an address or a
	// descriptor. It says nothing about the service.
	Local
	// Unfinished: in flight when the run ended.
	Unfinished
	outcomes
)

var outcomeNames = [outcomes]string{
	"completed", "refused", "reset", "stalled", "connect_timeout", "unreachable", "wrong", "local", "unfinished",
}

// String is the name that the JSON has.
func (o Outcome) String() string {
	if o < 0 || o >= outcomes {
		return fmt.Sprintf("outcome(%d)", int(o))
	}
	return outcomeNames[o]
}

// Broken tells whether a user would call it an outage.
func (o Outcome) Broken() bool { return o >= Refused && o <= Wrong }

// MarshalText writes the name.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the name.
func (o *Outcome) UnmarshalText(b []byte) error {
	for i, name := range outcomeNames {
		if name == string(b) {
			*o = Outcome(i)
			return nil
		}
	}
	return fmt.Errorf("reading an outcome: %q is none", b)
}

// wrongError is an answer that came and is not what it should be.
type wrongError string

func (e wrongError) Error() string { return string(e) }

// classify turns an error into an outcome. Before the handshake's end the
// same errno means something else than after it.
func classify(ctx context.Context, err error, connected bool) Outcome {
	var wrong wrongError
	switch {
	case err == nil:
		return Completed
	case ctx.Err() != nil:
		return Unfinished
	case errors.As(err, &wrong):
		return Wrong
	case isAny(err, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS,
		syscall.ENOMEM, syscall.EINVAL, syscall.EPERM, syscall.EACCES, syscall.EAFNOSUPPORT):
		return Local
	case isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.ENOPROTOOPT):
		return Unreachable
	case isAny(err, syscall.ECONNREFUSED) && !connected:
		return Refused
	case isAny(err, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED, syscall.ECONNABORTED):
		return Reset
	case isTimeout(err) && connected:
		return Stalled
	case isTimeout(err):
		return ConnectTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Wrong
	case connected:
		return Wrong // What remains are faults of the HTTP parser.
	}
	return Local
}

func isAny(err error, errnos ...syscall.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
