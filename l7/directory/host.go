package directory

import (
	"errors"
	"fmt"
	"strings"
)

// maxHost bounds a host's name, in bytes (RFC 1035 section 2.3.4, without the
// final dot).
const maxHost = 253

// ErrHost tells that a Host header names nothing that a directory could know.
var ErrHost = errors.New("not a host's name")

// hostOf reads a Host header as HAProxy's "host_only,lower" does, so that the
// name found here is the key that HAProxy looks up, and refuses what is no name:
// what is refused is never sent to the directory nor to HAProxy. The final dot
// of an absolute name is taken off for the directory; such a name is never the
// same key for HAProxy, so plain tells whether the name may go into the map.
func hostOf(header string) (host string, plain bool, err error) {
	host = strings.ToLower(header)
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host, ']') < 0 {
		host = host[:i]
	}
	plain = !strings.HasSuffix(host, ".")
	host = strings.TrimSuffix(host, ".")
	return host, plain, checkHost(host)
}

// checkHost takes letters in lower case, digits, hyphens and the underscores
// that people use all the same (RFC 1123 section 2.1), in labels of 1 to 63.
// An IPv4 address is refused: it has no entry in a directory of names.
func checkHost(host string) error {
	quoted := host
	if len(quoted) > 64 {
		quoted = quoted[:64]
	}
	switch {
	case host == "":
		return fmt.Errorf("%w: it is empty", ErrHost)
	case len(host) > maxHost:
		return fmt.Errorf("%w: %q... has %d bytes, more than %d", ErrHost, quoted, len(host), maxHost)
	}
	label, digits := 0, true // of the label at hand
	for i := range len(host) {
		switch b := host[i]; {
		case b == '.':
			if label == 0 || host[i-1] == '-' {
				return fmt.Errorf("%w: %q has a label that is empty or ends in a hyphen", ErrHost, quoted)
			}
			label, digits = 0, true
			continue
		case 'a' <= b && b <= 'z', b == '_':
			digits = false
		case '0' <= b && b <= '9':
		case b == '-' && label > 0:
			digits = false
		default:
			return fmt.Errorf("%w: %q has %q at byte %d", ErrHost, quoted, b, i+1)
		}
		if label++; label > 63 {
			return fmt.Errorf("%w: %q has a label of more than 63 bytes", ErrHost, quoted)
		}
	}
	switch {
	case label == 0 || host[len(host)-1] == '-':
		return fmt.Errorf("%w: %q has a label that is empty or ends in a hyphen", ErrHost, quoted)
	case digits:
		return fmt.Errorf("%w: %q is an address or a number", ErrHost, quoted)
	}
	return nil
}
