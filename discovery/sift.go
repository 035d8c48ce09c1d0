package discovery

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxWord is the length of a name, zone or group. A host name has at most
	// 253 characters, the name of an Auto Scaling group 255.
	maxWord = 255
	// maxWeight is HAProxy's.
	maxWeight = 256
	// maxRefused is how many refusals are kept: what fits a screen.
	maxRefused = 32
	// maxShown is how much of a refused value is shown.
	maxShown = 80
)

// sift divides entries into servers and refusals. Of two that cannot both be, the
// one in the list before stays, else the first by name. The order in which the
// entries come makes no difference: sources do not keep one, and the same must
// win each time.
func sift(entries []Entry, before []Server) (servers []Server, refused []Refusal) {
	servers = make([]Server, 0, len(entries))
	for _, entry := range entries {
		server, err := check(entry)
		if err != nil {
			refused = append(refused, Refusal{
				Entry:  shown(cmp.Or(entry.Name, entry.Target, "an entry without a target")),
				Reason: shorten(err.Error()),
			})
			continue
		}
		servers = append(servers, server)
	}
	servers, twice := distinct(servers, before)
	refused = append(refused, twice...)
	slices.SortStableFunc(refused, func(a, b Refusal) int {
		return cmp.Or(strings.Compare(a.Entry, b.Entry), strings.Compare(a.Reason, b.Reason))
	})
	return servers, refused
}

// distinct sorts servers by name and refuses those that cannot be beside others.
func distinct(all, before []Server) (servers []Server, refused []Refusal) {
	slices.SortFunc(all, compareServers)
	held := make(map[Server]bool, len(before)) // without labels, which may change
	for _, s := range before {
		held[Server{Name: s.Name, Addr: s.Addr, Port: s.Port}] = true
	}
	names := make(map[string]netip.AddrPort, len(all))
	targets := make(map[netip.AddrPort]string, len(all))
	stays := make([]bool, len(all))
	for _, turn := range []bool{true, false} {
		for i, s := range all {
			if held[Server{Name: s.Name, Addr: s.Addr, Port: s.Port}] != turn {
				continue
			}
			target := netip.AddrPortFrom(s.Addr, s.Port)
			var reason string
			if other, taken := names[s.Name]; taken && other == target {
				reason = "it is in the list twice"
			} else if taken {
				reason = fmt.Sprintf("%v has a name that %v has already", target, other)
			} else if other, taken := targets[target]; taken {
				reason = fmt.Sprintf("%v is the address of %s already", target, shown(other))
			}
			if reason != "" {
				refused = append(refused, Refusal{Entry: shown(s.Name), Reason: shorten(reason)})
				continue
			}
			names[s.Name], targets[target], stays[i] = target, s.Name, true
		}
	}
	servers = all[:0]
	for i, s := range all {
		if stays[i] {
			servers = append(servers, s)
		}
	}
	return servers, refused
}

// compareServers orders by name. Where two have the same, the one that asks for
// less work comes first and so is the one that counts.
func compareServers(a, b Server) int {
	return cmp.Or(
		strings.Compare(a.Name, b.Name),
		a.Addr.Compare(b.Addr),
		cmp.Compare(a.Port, b.Port),
		compareBools(b.Excluded, a.Excluded),
		cmp.Compare(a.Weight, b.Weight),
		strings.Compare(a.Zone, b.Zone),
		strings.Compare(a.Group, b.Group))
}

// compareBools has false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// check makes a server of an entry, or tells why there is none to make.
func check(entry Entry) (Server, error) {
	if entry.Fault != "" {
		return Server{}, fmt.Errorf("%s", printable(entry.Fault))
	}
	var server Server
	var err error
	if server.Addr, server.Port, err = checkTarget(entry.Target); err != nil {
		return Server{}, err
	}
	if server.Name, err = checkName(cmp.Or(entry.Name, nameOf(server.Addr, server.Port))); err != nil {
		return Server{}, err
	}
	if server.Labels, err = checkLabels(entry.Labels); err != nil {
		return Server{}, err
	}
	return server, nil
}

// nameOf is the name of a server that was given none. IPv6 addresses take the
// form of RFC 5952 section 6 with a dot, because HAProxy has no brackets in
// names.
func nameOf(addr netip.Addr, port uint16) string {
	separator := ":"
	if addr.Is6() {
		separator = "."
	}
	return addr.String() + separator + strconv.Itoa(int(port))
}

// checkTarget splits ADDRESS:PORT. Host names are refused: what they stand for
// depends on who asks and when, and the list must be the same for everybody who
// reads it. The DNS source is for names.
func checkTarget(target string) (netip.Addr, uint16, error) {
	if target == "" {
		return netip.Addr{}, 0, fmt.Errorf("it has no target")
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("the target %s is not ADDRESS:PORT", shown(target))
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("%s is no IP address (host names are for dns_srv)", shown(host))
	}
	addr = addr.Unmap()
	// ParseUint takes no sign, and no number that Atoi would wrap. HAProxy
	// itself wraps 99999 to 34463 without a word.
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return netip.Addr{}, 0, fmt.Errorf("the port %s is not between 1 and 65535", shown(port))
	}
	switch {
	case addr.Zone() != "":
		err = fmt.Errorf("the address %s has a zone, which differs from host to host", shown(host))
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		err = fmt.Errorf("the address %v is not that of one server", addr)
	case addr.Is6() && addr.IsLinkLocalUnicast():
		err = fmt.Errorf("the address %v is not reachable without naming a device", addr)
	}
	return addr, uint16(number), err
}

// checkName has HAProxy's rule for the names of servers.
func checkName(name string) (string, error) {
	if len(name) > maxWord {
		return "", fmt.Errorf("the name has %d bytes, and %d is the most", len(name), maxWord)
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return "", fmt.Errorf("the name has %s in it, and may have letters, digits and . _ : -", odd(name[i:]))
		}
	}
	return name, nil
}

// odd quotes the first character of text.
func odd(text string) string {
	for i := range text {
		if i > 0 {
			return strconv.QuoteToASCII(text[:i])
		}
	}
	return strconv.QuoteToASCII(text)
}

// checkLabels reads the labels that mean something. A value that is not
// understood refuses the server: to guess at a weight could overload it, and to
// guess at exclude_from_loadbalancer could send work to one that must not have
// any.
func checkLabels(given map[string]string) (Labels, error) {
	var labels Labels
	var err error
	if text := given[LabelWeight]; text != "" {
		weight, err := strconv.ParseUint(text, 10, 16)
		if err != nil || weight > maxWeight {
			return labels, fmt.Errorf("the weight %s is not a whole number from 0 to %d", shown(text), maxWeight)
		}
		labels.Weight = int(weight)
		labels.Excluded = weight == 0
	}
	if text := given[LabelExclude]; text != "" {
		excluded, known := truth(text)
		if !known {
			return labels, fmt.Errorf("%s %s is neither true nor false", LabelExclude, shown(text))
		}
		labels.Excluded = labels.Excluded || excluded
	}
	if labels.Zone, err = checkWord(LabelZone, given[LabelZone]); err != nil {
		return labels, err
	}
	if labels.Group, err = checkWord(LabelGroup, given[LabelGroup]); err != nil {
		return labels, err
	}
	return labels, nil
}

// truth reads a boolean as people write it in JSON, YAML, and tags.
func truth(text string) (value, known bool) {
	if len(text) > len("false") {
		return false, false
	}
	switch strings.ToLower(text) {
	case "true", "1", "yes":
		return true, true
	case "false", "0", "no":
		return false, true
	}
	return false, false
}

// checkWord lets through what can stand in a log line, a metric and a
// configuration without being quoted.
func checkWord(label, value string) (string, error) {
	if len(value) > maxWord {
		return "", fmt.Errorf("the %s has %d bytes, and %d is the most", label, len(value), maxWord)
	}
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c > '~' || strings.IndexByte("\"'`\\;#<>", c) >= 0 {
			return "", fmt.Errorf("the %s has %s in it", label, odd(value[i:]))
		}
	}
	return value, nil
}

// shown is a value of a stranger's as it can be put into a message: cut to
// maxShown bytes, and quoted unless it is one plain word.
func shown(value string) string {
	rest := ""
	if len(value) > maxShown {
		rest = fmt.Sprintf("... (%d bytes)", len(value))
		value = value[:maxShown]
	}
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			// A byte that became four would make a short value long.
			quoted := strconv.QuoteToASCII(value)
			if len(quoted) > 2*maxShown {
				quoted = quoted[:2*maxShown] + `"...`
			}
			return quoted + rest
		}
	}
	if value == "" {
		return `""`
	}
	return value + rest
}
