package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Why a session is stopped, besides a change of its configuration.
var (
	errShutdown = errors.New("shutting down")
	errRemoved  = errors.New("peer removed")
	// errAbandoned has the session end without a word.
	errAbandoned = errors.New("left without a word")
)

// Restarts names what of a change to the peer cannot be made while a session is
// up, because it is said in an OPEN or stands in every packet: SetPeers ends the
// session and begins another. local is the session's local address; where it
// is the Source that is wanted, that is no reason. None: the change is made in
// place.
func (p Peer) Restarts(to Peer, local netip.Addr) []string {
	var changed []string
	note := func(what string, differs bool) {
		if differs {
			changed = append(changed, what)
		}
	}
	note("AS", p.AS != to.AS)
	note("hold time", p.HoldTime != to.HoldTime)
	note("graceful restart", p.GracefulRestart != to.GracefulRestart)
	note("address families", p.families() != to.families())
	note("siblings", p.Siblings != to.Siblings)
	note("source address", p.Source != to.Source && to.Source.IsValid() && to.Source != local)
	return changed
}

// String is the families as in ipv4,ipv6.
func (f Families) String() string {
	var words []string
	if f == 0 || f&IPv4 != 0 {
		words = append(words, "ipv4")
	}
	if f == 0 || f&IPv6 != 0 {
		words = append(words, "ipv6")
	}
	return strings.Join(words, ",")
}

// families are those that the session carries.
func (p Peer) families() Families { return cmp.Or(p.Families, IPv4|IPv6) }

// carries reports whether the session carries a family of GoBGP's.
func (p Peer) carries(f bgp.Family) bool {
	if f == bgp.RF_IPv6_UC {
		return p.families()&IPv6 != 0
	}
	return p.families()&IPv4 != 0
}

// hops are the TTL of packets to the peer, or -1 for that of the system, and
// the least that packets from it must have, or 0 for any.
func (p Peer) hops(external bool) (ttl, least int) {
	n := cmp.Or(p.Multihop, 1)
	switch {
	case p.TTLSecurity:
		return 255, 256 - n
	case external:
		return n, 0
	}
	return -1, 0
}

// resting is the state of a session that is not there.
func (p Peer) resting() string {
	if p.Passive {
		return stateActive
	}
	return stateConnect
}

// waiting is why a session is not up that nobody has tried yet.
func (p Peer) waiting() string {
	if p.Passive {
		return "the peer has not called yet"
	}
	return ""
}

// validate tells what is wrong with a peer of a speaker with these options.
func (p Peer) validate(o Options) error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("setting BGP peer %s: %w", p.Name, fmt.Errorf(format, args...)))
	}
	if !p.Address.IsValid() || p.Address.Is4In6() || p.Address.IsUnspecified() || p.Address.IsMulticast() {
		fault("%s is no address of a peer", p.Address)
	}
	if p.Address.IsLinkLocalUnicast() && p.Address.Is6() && p.Address.Zone() == "" {
		fault("%s is link-local and needs its interface, as in %s%%eth0", p.Address, p.Address)
	}
	if p.Port < 0 || p.Port > 65535 {
		fault("port %d is no port", p.Port)
	}
	if p.AS == 0 || p.AS == 1<<32-1 {
		fault("AS %d is reserved", p.AS)
	}
	if p.Passive && o.ListenPort == 0 {
		fault("it is to call, and there is no port to call at")
	}
	if p.Source.IsValid() && (p.Source.Is4() != p.Address.Is4() || p.Source.IsUnspecified() || p.Source.IsMulticast()) {
		fault("source address %s cannot call %s", p.Source, p.Address)
	}
	if p.Multihop < 0 || p.Multihop > 255 {
		fault("%d hops is not between 1 and 255", p.Multihop)
	}
	if p.Families&^(IPv4|IPv6) != 0 {
		fault("there are no address families %#x", uint8(p.Families))
	}
	if len(p.Password) > maxPassword {
		fault("the password has %d bytes, more than the %d of a TCP MD5 key", len(p.Password), maxPassword)
	}
	if p.HoldTime != 0 && (p.HoldTime < 3*time.Second || p.HoldTime > 65535*time.Second) {
		fault("hold time %s is not between 3s and 65535s", p.HoldTime)
	}
	if p.GracefulRestart < 0 || p.GracefulRestart > MaxGracefulRestart {
		fault("graceful restart %s is not between 0s and %s", p.GracefulRestart, MaxGracefulRestart)
	}
	if p.PrefixLimit < 0 || p.PrefixLimit > MaxPrefixLimit {
		fault("prefix limit %d is not between 0 and %d", p.PrefixLimit, MaxPrefixLimit)
	}
	if err := p.Attributes.validate(); err != nil {
		fault("%w", err)
	}
	return errors.Join(errs...)
}

// equal compares all of two peers.
func (p Peer) equal(q Peer) bool { return reflect.DeepEqual(p, q) }
