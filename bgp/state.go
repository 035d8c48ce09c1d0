package bgp

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// up notes that the session is established, and returns the families that both
// sides speak.
func (s *session) up(theirs []bgp.Family) Families {
	s.mu.Lock()
	log := s.log
	var both []bgp.Family
	var names []string
	for _, f := range families {
		if s.peer.carries(f) && slices.Contains(theirs, f) {
			both, names = append(both, f), append(names, f.String())
		}
	}
	s.state, s.since, s.last, s.families = stateEstablished, time.Now(), "", both
	agreed := s.agree()
	s.mu.Unlock()
	log.Info("bgp session up", append([]any{"as", s.as, "families", strings.Join(names, ",")}, agreed...)...)
	s.changed()
	return familyBits(both...)
}

// down notes that the session, or the attempt at one, failed. What failed for
// the same reason before is not told again.
func (s *session) down(level slog.Level, reason string) {
	s.mu.Lock()
	log, was, before := s.log, s.state, s.last
	if was == stateEstablished {
		s.outage = time.Now()
	}
	s.state, s.since, s.last, s.families, s.keeps = s.peer.resting(), s.outage, reason, nil, 0
	s.mu.Unlock()
	switch {
	case was == stateEstablished:
		log.Log(context.Background(), level, "bgp session down", "as", s.as, "reason", reason)
	case reason != before:
		log.Log(context.Background(), level, "bgp session not up", "as", s.as, "reason", reason)
	default:
		return
	}
	s.changed()
}

// set notes a state on the way.
func (s *session) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state {
		s.state, s.since = state, time.Now()
	}
}

// withdrawals tells, by closing the channel, when the peer has been sent a
// withdrawal for each of the routes that it has. Nil where there is no session.
func (s *session) withdrawals(routes []announcement) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateEstablished || s.current == nil {
		return nil
	}
	n := 0
	for _, r := range routes {
		if slices.Contains(s.families, r.family()) {
			n++
		}
	}
	return s.current.awaitWithdrawals(n)
}

// status is the session's, without the count of routes, and the families to
// count them by.
func (s *session) status() (PeerStatus, []bgp.Family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var received Received
	if s.current != nil {
		received = s.current.source.status()
	}
	return PeerStatus{
		Name:                 s.peer.Name,
		Address:              s.address,
		AS:                   s.as,
		State:                s.state,
		Since:                s.since,
		Received:             received,
		Attributes:           s.peer.Attributes,
		GracefulRestartAsked: s.peer.GracefulRestart,
		GracefulRestart:      s.keeps,
		LastError:            s.last,
	}, s.families
}
