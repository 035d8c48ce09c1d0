package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// maxWord bounds one word of a command, in bytes.
	maxWord = 1024
	// maxLine bounds a command, in bytes. HAProxy's own bound is tune.bufsize,
	// 16384 where it is left out, less what it keeps for itself.
	maxLine = 4096
	// maxPayload bounds the lines that follow a command, in bytes, for the
	// same reason.
	maxPayload = 8192
)

// Command is one line to HAProxy, put together from checked words, and what
// its reply looks like when it was carried out.
type Command struct {
	line    string
	payload string // lines that follow, each with its newline; or empty
	want    []string
}

// String is the command as it is sent, without its payload.
func (c Command) String() string { return c.line }

// text is the command as it travels, its end included. A payload ends with an
// empty line.
func (c Command) text() string {
	if c.payload != "" {
		return c.line + " <<\n" + c.payload + "\n"
	}
	return c.line + "\n"
}

// failed names the command whose exchange broke.
func (c Command) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("sending %q to HAProxy: %w", c.line, err)
}

// ErrWord tells that a word would not reach HAProxy as one word, so that
// nothing was sent.
var ErrWord = errors.New("not a word that HAProxy can be sent")

// CheckWord refuses what HAProxy would not take as one word, whatever stands
// around it: an empty one, spaces and control characters, a semicolon (the end
// of a command), a backslash (the escape), anything beyond ASCII, "<<" (the
// start of a payload), and more than 1,024 bytes. The error wraps ErrWord,
// says what is wrong, and quotes the start of the word.
func CheckWord(word string) error {
	switch {
	case word == "":
		return fmt.Errorf("%w: it is empty", ErrWord)
	case len(word) > maxWord:
		return fmt.Errorf("%w: %q... has %d bytes, more than %d", ErrWord, word[:32], len(word), maxWord)
	case strings.Contains(word, "<<"):
		return fmt.Errorf("%w: %q has <<, which starts a payload", ErrWord, clip(word))
	}
	for i := range len(word) {
		switch b := word[i]; {
		case b == ' ':
			return fmt.Errorf("%w: %q has a space", ErrWord, clip(word))
		case b == ';':
			return fmt.Errorf("%w: %q has a semicolon, which ends a command", ErrWord, clip(word))
		case b == '\\':
			return fmt.Errorf("%w: %q has a backslash, which escapes", ErrWord, clip(word))
		case b == '\n' || b == '\r':
			return fmt.Errorf("%w: %q has a newline, which ends a command", ErrWord, clip(word))
		case b < ' ' || b == 0x7f:
			return fmt.Errorf("%w: %q has a control character", ErrWord, clip(word))
		case b >= 0x80:
			return fmt.Errorf("%w: %q has a byte beyond ASCII", ErrWord, clip(word))
		}
	}
	return nil
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// command puts words together, each checked, and remembers which replies mean
// that it was carried out: those that begin with one of want, or the empty one
// where want is empty.
func command(want []string, words ...string) (Command, error) {
	for _, w := range words {
		if err := CheckWord(w); err != nil {
			return Command{}, fmt.Errorf("putting %q together: %w", words[0]+" "+clip(words[1]), err)
		}
	}
	line := strings.Join(words, " ")
	if len(line) > maxLine {
		return Command{}, fmt.Errorf("putting %q together: %d bytes, more than %d", words[0]+" "+clip(words[1]), len(line), maxLine)
	}
	return Command{line: line, want: want}, nil
}

// name checks the name of a back end or of a server: the characters that
// HAProxy's configuration admits in one (section 2.4 of its manual), and so
// neither the slash that separates the two, nor the # that makes a number of
// it.
func name(what, s string) error {
	if err := CheckWord(s); err != nil {
		return fmt.Errorf("naming a %s: %w", what, err)
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("-_.:", b) >= 0:
		default:
			return fmt.Errorf("naming a %s: %w: %q has %q", what, ErrWord, clip(s), b)
		}
	}
	return nil
}

// onServer puts together a command about one server.
func onServer(want []string, verb []string, backend, server string, rest ...string) (Command, error) {
	if err := errors.Join(name("back end", backend), name("server", server)); err != nil {
		return Command{}, err
	}
	return command(want, append(append(verb, backend+"/"+server), rest...)...)
}

// CheckAddr refuses an address or a port that no server can have: HAProxy
// wraps a port that is too great without a word, resolves what is no address,
// and knows no IPv6 zones.
func CheckAddr(a netip.AddrPort) error {
	switch ip := a.Addr(); {
	case !ip.IsValid():
		return errors.New("checking a server's address: it is none")
	case ip.Zone() != "":
		return fmt.Errorf("checking the address %s: HAProxy knows no zones", ip)
	case ip.IsUnspecified():
		return fmt.Errorf("checking the address %s: it is the unspecified one", ip)
	case ip.IsMulticast(), ip.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("checking the address %s: it is not that of one host", ip)
	case a.Port() == 0:
		return fmt.Errorf("checking the address %s: port 0", a)
	}
	return nil
}

// SetServerAddr gives the server another address and port. Connections that
// exist keep the old one; whatever comes after, checks included, goes to the
// new one.
func SetServerAddr(backend, server string, to netip.AddrPort) (Command, error) {
	if err := CheckAddr(to); err != nil {
		return Command{}, err
	}
	return onServer([]string{"IP changed from ", "no need to change the addr", "port changed from "}, []string{"set", "server"}, backend, server,
		"addr", to.Addr().Unmap().String(), "port", strconv.Itoa(int(to.Port())))
}

// State is what an operator wants of a server.
type State string

const (
	// Ready: takes part in load balancing while its checks pass.
	Ready State = "ready"
	// Drain: checked, but given no new sessions except by persistence.
	Drain State = "drain"
	// Maint: neither checked nor given sessions. Those that exist run on.
	Maint State = "maint"
)

// SetServerState sets the administrative state. A server that leaves Maint
// counts as healthy until its first check says otherwise; SetServerHealth
// right after is what holds traffic back.
func SetServerState(backend, server string, s State) (Command, error) {
	switch s {
	case Ready, Drain, Maint:
		return onServer(nil, []string{"set", "server"}, backend, server, "state", string(s))
	}
	return Command{}, fmt.Errorf("setting the state of %s/%s: %q is none of ready, drain, maint", clip(backend), clip(server), clip(string(s)))
}

// SetServerHealth overrules the health check's last verdict until the next
// one: up with all its credit, or down with none, so that it takes "rise"
// passing checks to come in. A server without a check that is set down stays
// down for good.
func SetServerHealth(backend, server string, up bool) (Command, error) {
	word := "down"
	if up {
		word = "up"
	}
	return onServer(nil, []string{"set", "server"}, backend, server, "health", word)
}

// MaxWeight is the greatest weight of a server, HAProxy's own bound.
const MaxWeight = 256

// SetServerWeight sets the weight, 0 to MaxWeight. In a back end whose
// balancing is static (hash-type map-based is) HAProxy refuses it; see
// ErrStaticWeight.
func SetServerWeight(backend, server string, weight int) (Command, error) {
	if weight < 0 || weight > MaxWeight {
		return Command{}, fmt.Errorf("setting the weight of %s/%s: %d is not in 0 to %d", clip(backend), clip(server), weight, MaxWeight)
	}
	return onServer(nil, []string{"set", "server"}, backend, server, "weight", strconv.Itoa(weight))
}

// EnableAgent starts or stops the agent check of a server that is configured
// with one. While it runs, the agent's words set weight and administrative
// state as these commands do, and the last one wins.
func EnableAgent(backend, server string, on bool) (Command, error) {
	return onServer(nil, []string{onOff(on), "agent"}, backend, server)
}

// EnableCheck starts or stops the health check of a server that is configured
// with one. While it is stopped, the server counts as healthy.
func EnableCheck(backend, server string, on bool) (Command, error) {
	return onServer(nil, []string{onOff(on), "health"}, backend, server)
}

func onOff(on bool) string {
	if on {
		return "enable"
	}
	return "disable"
}

// AddServer makes a new server, in Maint, with its checks stopped and the
// parameters given, one word each ("check", "inter", "1s"); default-server
// does not apply to it. The back end's balancing must be dynamic. It is gone
// at the next reload.
func AddServer(backend, server string, at netip.AddrPort, parameters ...string) (Command, error) {
	if err := CheckAddr(at); err != nil {
		return Command{}, err
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	return onServer([]string{"New server registered."}, []string{"add", "server"}, backend, server, append([]string{at.String()}, parameters...)...)
}

// DelServer deletes a server, which must be in Maint, with no connection left
// and referred to by nothing.
func DelServer(backend, server string) (Command, error) {
	return onServer([]string{"Server deleted."}, []string{"del", "server"}, backend, server)
}
