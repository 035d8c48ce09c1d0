package load

import (
	"errors"
	"fmt"
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

// classify turns an error into an outcome. Before the handshake's end the
// same errno means something else than after it.
func classify(err error, connected bool) Outcome {
	var wrong wrongError
	switch {
	case err == nil:
		return Completed
	case errors.As(err, &wrong):
		return Wrong
	case errors.Is(err, errConnect):
		return ConnectTimeout
	case errors.Is(err, errStalled), errors.Is(err, errTimeout):
		return Stalled
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return Local
	}
	switch errno {
	case syscall.ETIMEDOUT:
		if connected {
			return Stalled
		}
		return ConnectTimeout
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.ENOPROTOOPT:
		return Unreachable
	case syscall.ECONNREFUSED:
		if connected {
			return Reset
		}
		return Refused
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return Reset
	}
	return Local
}
