package bgp

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// hold makes a connection the session's, with the options that the peer has by
// now: the call may be older, or the peer's own.
func (s *session) hold(c *connection) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = c
	return s.equip(c, s.peer.Password != "")
}

func (s *session) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = nil
}

// equip sets those options of a connection that can change while it lasts. It
// is called with mu held.
func (s *session) equip(c *connection, password bool) error {
	return c.control(func(fd int) error {
		if err := setHops(fd, s.peer, s.external); err != nil || !password {
			return err
		}
		return setPassword(fd, s.address, s.peer.Password)
	})
}

// refresh asks the peer for its routes of the families once more (RFC 2918).
// GoBGP has no say in it: it is not GoBGP that reads the answer.
func (s *session) refresh(f Families) {
	s.mu.Lock()
	c, established := s.current, s.state == stateEstablished
	s.mu.Unlock()
	if c == nil || !established || c.source == nil || !c.canRefresh() {
		return
	}
	go func() { // a peer that reads nothing must not hold up the others
		for _, family := range families {
			if f&familyBits(family) != 0 {
				afi := family.Afi()
				_, _ = c.Write(frame(bgp.BGP_MSG_ROUTE_REFRESH, []byte{byte(afi >> 8), byte(afi), 0, family.Safi()}))
			}
		}
	}()
}

// configured is the peer as it was last set.
func (s *session) configured() Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// local is the local address of the session; invalid where there is none.
func (s *session) local() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return netip.Addr{}
	}
	return s.current.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
}

// change makes of the peer another one, from which it differs in nothing that
// Restarts names. The export policy for the new one is in force already.
//
// A new password takes effect at once. Until the peer has it too, the kernel
// drops what it sends; so the session lives if that happens within the hold
// time.
func (s *session) change(to Peer, log *slog.Logger) {
	s.mu.Lock()
	was := s.peer
	s.peer, s.log = to, log
	established := s.state == stateEstablished
	var changed []any
	var err error
	if s.current != nil {
		if was.Multihop != to.Multihop || was.TTLSecurity != to.TTLSecurity {
			changed = append(changed, "multihop", cmp.Or(to.Multihop, 1), "ttl_security", to.TTLSecurity)
		}
		if was.Password != to.Password {
			changed = append(changed, "password", "changed")
		}
		if s.current.source != nil {
			s.current.source.limit.Store(int64(to.PrefixLimit))
		}
		err = s.equip(s.current, was.Password != to.Password)
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		log.Warn("bgp session not changed in place", "as", s.as, "err", err)
	case changed != nil:
		log.Info("bgp session changed in place", append([]any{"as", s.as}, changed...)...)
	}
	select {
	case s.poked <- struct{}{}:
	default:
	}
	if was.Attributes.Equal(to.Attributes) {
		return
	}
	// Every route is sent anew, which replaces it (RFC 4271 section 3.1). That
	// GoBGP does not know the peer is the only error: the next session begins
	// with the new attributes.
	err = s.server.ResetPeer(context.Background(), &api.ResetPeerRequest{
		Address: s.address.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
	if err == nil && established {
		log.Info("bgp routes sent with other attributes", "as", s.as, "attributes", to.Attributes)
	}
}
