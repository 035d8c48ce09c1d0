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
// the same reason before is not told again, until the session has been up.
func (s *session) down(level slog.Level, reason string) {
	s.mu.Lock()
	log, was := s.log, s.state
	if was == stateEstablished {
		s.outage, s.told = time.Now(), nil
	}
	s.state, s.since, s.last, s.families, s.keeps = s.peer.resting(), s.outage, reason, nil, 0
	said := s.say(reason)
	s.mu.Unlock()
	switch {
	case was == stateEstablished:
		log.Log(context.Background(), level, "bgp session down", "as", s.as, "reason", reason)
	case said != "":
		log.Log(context.Background(), level, "bgp session not up", "as", s.as, "reason", said)
	default:
		return
	}
	s.changed()
}

// turnAway notes that a call of the peer's was not taken, where there is no
// session that matters more.
func (s *session) turnAway(reason string) {
	s.mu.Lock()
	if s.state == stateEstablished {
		s.mu.Unlock()
		return
	}
	s.last = reason
	log, said := s.log, s.say(reason)
	s.mu.Unlock()
	if said != "" {
		log.Warn("bgp session not up", "as", s.as, "reason", said)
		s.changed()
	}
}

// say is what the log says of a reason why the session is not up: nothing where
// it was told before, nor after maxTold others. It is called with mu held.
func (s *session) say(reason string) string {
	switch n := len(s.told); {
	case s.told[reason], n > maxTold:
		return ""
	case s.told == nil:
		s.told = map[string]bool{}
	case n == maxTold:
		s.told[reason] = true
		return "others time and again; the status has the latest"
	}
	s.told[reason] = true
	return reason
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
