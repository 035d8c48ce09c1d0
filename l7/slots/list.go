package slots

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxText bounds each text of a server, in bytes.
const maxText = 255

// Refusal is a server of a list that gets no slot, or keeps the one that it
// has as it is, because what the list says of it cannot be right.
type Refusal struct {
	// Server is its ID, or its name or address where it has none that can be
	// shown; at most 64 bytes and printable.
	Server string
	Err    error
}

// String names the server and says what is wrong.
func (r Refusal) String() string { return r.Server + ": " + r.Err.Error() }

// check refuses what must not reach HAProxy, its files or a log. It returns
// the address as it is compared: IPv4 in IPv6 as IPv4.
func check(s Server) (netip.AddrPort, error) {
	for _, t := range []struct{ what, text string }{{"id", s.ID}, {"name", s.Name}, {"group", s.Group}, {"zone", s.Zone}} {
		if err := checkText(t.text); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s %w", t.what, err)
		}
	}
	ip := s.Addr.Unmap()
	switch {
	case s.ID == "":
		return netip.AddrPort{}, errors.New("no id")
	case !ip.IsValid():
		return netip.AddrPort{}, errors.New("no address")
	case ip.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("address %s has a zone, which HAProxy does not know", ip)
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.AddrPort{}, fmt.Errorf("address %s is not that of one host", ip)
	case s.Port < 1 || s.Port > 65535:
		return netip.AddrPort{}, fmt.Errorf("port %d is not in 1 to 65535", s.Port)
	case s.Weight != NoWeight && (s.Weight < 0 || s.Weight > MaxWeight):
		return netip.AddrPort{}, fmt.Errorf("weight %d is not in 0 to %d", s.Weight, MaxWeight)
	}
	return netip.AddrPortFrom(ip, uint16(s.Port)), nil
}

// checkText refuses what could end a word, a line, a comment or a quotation
// somewhere on the way to HAProxy. The empty text passes.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%q... has %d bytes, more than %d", clip(s), len(s), maxText)
	}
	for i := range len(s) {
		if b := s[i]; b <= ' ' || b >= 0x7f || strings.IndexByte(";\\\"'`#<>", b) >= 0 {
			return fmt.Errorf("%q has %q", clip(s), b)
		}
	}
	return nil
}

// clip shortens what is shown.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// shown is how a refused server is called.
func (s Server) shown() string {
	for _, text := range []string{s.ID, s.Name} {
		if text != "" {
			quoted := fmt.Sprintf("%+q", clip(text))
			return clip(strings.Trim(quoted, `"`))
		}
	}
	if s.Addr.IsValid() {
		return s.Addr.String()
	}
	return "(without a name)"
}

// listed is a server that may have a slot.
type listed struct {
	Server
	at netip.AddrPort
}

// sift parts a list into the servers that may have slots, by ID, and those
// refused. Of several with one ID or one address, the one that has a slot
// already stays, else the first by address, or by ID; which order the source
// names them in makes no difference, so it cannot make a server's place flap.
func sift(servers []Server, r Record) (good map[string]listed, refused []Refusal) {
	slotOf, ownerOf := map[string]Slot{}, map[netip.AddrPort]string{}
	for _, s := range r.Slots {
		if s.State != Free {
			slotOf[s.ID], ownerOf[s.Addr] = s, s.ID
		}
	}
	refuse := func(s Server, err error) { refused = append(refused, Refusal{s.shown(), err}) }

	var all []listed
	for _, s := range servers {
		at, err := check(s)
		if err != nil {
			refuse(s, err)
			continue
		}
		all = append(all, listed{s, at})
	}
	// owns puts first whoever stands as the record has it.
	owns := func(l listed) int {
		if slotOf[l.ID].Addr == l.at {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(owns(a), owns(b)), a.at.Compare(b.at), compareRest(a.Server, b.Server))
	})
	byAddr := map[netip.AddrPort]string{}
	good = map[string]listed{}
	for pass := range 2 {
		for _, l := range all {
			if (owns(l) == 0) != (pass == 0) {
				continue // those that stand as they stood come first
			}
			first, twice := good[l.ID]
			switch other, taken := byAddr[l.at]; {
			case twice && first.at == l.at:
				// The same server named twice says nothing new.
			case twice:
				refuse(l.Server, fmt.Errorf("the id is that of another server too, at %s", first.at))
			case taken:
				refuse(l.Server, fmt.Errorf("address %s is that of server %q too", l.at, other))
			default:
				good[l.ID], byAddr[l.at] = l, l.ID
			}
		}
	}
	slices.SortStableFunc(refused, func(a, b Refusal) int { return cmp.Compare(a.Server, b.Server) })
	return good, refused
}

// compareRest orders what one list says of one server in several ways: the one
// that means the least traffic comes first.
func compareRest(a, b Server) int {
	drained := func(s Server) int {
		if s.Exclude {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(drained(a), drained(b)), cmp.Compare(a.Weight, b.Weight),
		cmp.Compare(a.Group, b.Group), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Name, b.Name))
}
