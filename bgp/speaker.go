package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// settleTimeout bounds the wait for the last withdrawals to be sent. With
	// a handful of routes that takes a millisecond or two; with 10,000, or
	// peers that do not read, there has to be an end.
	settleTimeout = 2 * time.Second
	// maxPassword is TCP_MD5SIG_MAXKEYLEN of include/uapi/linux/tcp.h.
	maxPassword = 80
)

var errClosed = errors.New("the BGP speaker is closed")

// Speaker announces a set of routes to a set of peers. Its methods may be
// called from several goroutines.
type Speaker struct {
	options   Options
	log       *slog.Logger
	changed   func()
	server    *gobgp
	listeners []*net.TCPListener
	accepting sync.WaitGroup
	restart   restart // what sessions say of it at first

	// mu is held by whoever changes routes or peers, all the way through.
	mu     sync.Mutex
	closed bool
	routes []Route // what was last Set
	peers  []Peer  // what was last set with SetPeers
	// unset tells that SetPeers did not come to its end with them.
	unset bool
	hops  hopCache
	// siblings are what peers tell of other hosts.
	siblings *siblings
	table    listing

	// sessionsMu is held for moments only, so that Peers and an incoming
	// connection do not wait for a change.
	sessionsMu sync.RWMutex
	sessions   map[netip.Addr]*session
}

// Start starts a speaker without peers and routes. The context bounds the
// start; Close ends the speaker.
//
// changed is called, from any goroutine, when a session comes up, when one
// goes down, and when one stays down for another reason than before. It must
// not block.
func Start(ctx context.Context, o Options, log *slog.Logger, changed func()) (*Speaker, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Speaker{options: o, log: log, sessions: map[netip.Addr]*session{}, siblings: newSiblings(o.RouterID, changed),
		restart: restart{preserved: o.Preserved, since: time.Now()}}
	s.changed = func() {
		s.hops.moved.Store(true)
		changed()
	}
	if o.ListenPort != 0 {
		listeners, err := listen(o.ListenPort)
		if err != nil {
			return nil, err
		}
		s.listeners = listeners
	}
	g, err := startGoBGP(ctx, o, log)
	if err != nil {
		s.closeListeners()
		return nil, err
	}
	s.server = g
	for _, l := range s.listeners {
		s.accepting.Go(func() { s.accept(l) })
	}
	return s, nil
}

func (o Options) validate() error {
	switch {
	case o.AS == 0 || o.AS == 1<<32-1: // RFC 7607, RFC 7300
		return fmt.Errorf("starting the BGP speaker: AS %d is reserved", o.AS)
	case !o.RouterID.Is4() || o.RouterID.IsUnspecified():
		return fmt.Errorf("starting the BGP speaker: router ID %s is no IPv4 address", o.RouterID)
	case o.ListenPort < 0 || o.ListenPort > 65535:
		return fmt.Errorf("starting the BGP speaker: listen port %d is no port", o.ListenPort)
	}
	return nil
}

// accept passes what peers open to their sessions. A connection of somebody
// else, or of a peer that has one, is closed.
func (s *Speaker) accept(l *net.TCPListener) {
	for {
		tcp, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely; the peer will call again.
			s.log.Error("bgp connection not accepted", "error", socketError(err))
			time.Sleep(redialInterval)
			continue
		}
		remote := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		s.sessionsMu.RLock()
		session := s.sessions[remote]
		s.sessionsMu.RUnlock()
		if session == nil {
			s.log.Debug("bgp connection refused", "address", remote, "reason", "no such peer")
			_ = tcp.Close()
			continue
		}
		if err := session.take(tcp); err != nil {
			s.log.Debug("bgp connection refused", "address", remote, "reason", err)
			_ = tcp.Close()
		}
	}
}

// SetPeers makes the peers those given: new ones are connected to, missing
// ones are told goodbye, and changed ones are changed in place. Where a change
// cannot be made while the session is up, that session is ended and connected
// anew, and the log says for which change. A session whose peer did not change
// is not touched. New attributes replace those of the routes at the peer
// without a withdrawal.
//
// Nothing changes when one of the peers is not valid. SetPeers returns when the
// goodbyes are said, which takes a second or so where a peer reads nothing.
func (s *Speaker) SetPeers(peers []Peer) error {
	if err := s.validatePeers(peers); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("setting BGP peers: %w", errClosed)
	}
	if !s.unset && slices.EqualFunc(peers, s.peers, Peer.equal) {
		return nil
	}
	s.unset = true
	wanted := make(map[netip.Addr]Peer, len(peers))
	canonical := make([]Peer, 0, len(peers))
	for _, p := range peers {
		p.Attributes = p.Attributes.canonical()
		wanted[p.Address] = p
		canonical = append(canonical, p)
	}
	s.stopSessions(func(session *session) error {
		p, ok := wanted[session.address]
		if !ok {
			return errRemoved
		}
		if changed := session.configured().Restarts(p, session.local()); changed != nil {
			return fmt.Errorf("configuration changed: %s", strings.Join(changed, ", "))
		}
		return nil
	})
	s.peers = canonical
	// The policy and the table first: a new session must not begin with the
	// old ones. What cannot be announced is the next Set's to tell.
	s.hops.stale()
	errs := []error{s.server.setPolicies(context.Background(), s.options.AS, canonical)}
	_ = s.announce()

	for _, p := range canonical {
		if err := s.setPeer(p); err != nil {
			errs = append(errs, fmt.Errorf("setting BGP peer %s: %w", p.Name, err))
		}
	}
	err := errors.Join(errs...)
	s.unset = err != nil
	return err
}

// setPeer starts the session of a peer, or changes the one that it has.
func (s *Speaker) setPeer(p Peer) error {
	log := s.log.With("peer", p.Name, "address", p.Address)
	s.sessionsMu.RLock()
	present := s.sessions[p.Address]
	s.sessionsMu.RUnlock()
	password := ""
	if present != nil {
		password = present.configured().Password
	}
	if p.Password != password {
		if err := s.setListenPassword(p.Address, p.Password); err != nil {
			return err
		}
	}
	if present != nil {
		present.change(p, log)
		return nil
	}
	session := newSession(s.server, s.siblings, log, s.changed, p, p.AS != s.options.AS)
	session.restart = s.restart
	s.sessionsMu.Lock()
	s.sessions[p.Address] = session
	s.sessionsMu.Unlock()
	session.start()
	return nil
}

func (s *Speaker) validatePeers(peers []Peer) error {
	var errs []error
	seen := map[netip.Addr]string{}
	for _, p := range peers {
		errs = append(errs, p.validate(s.options))
		if other, ok := seen[p.Address]; ok {
			errs = append(errs, fmt.Errorf("setting BGP peer %s: peer %s has the same address %s", p.Name, other, p.Address))
		}
		seen[p.Address] = p.Name
	}
	return errors.Join(errs...)
}

// stopSessions stops the sessions for which there is a cause, all at once, and
// forgets them.
func (s *Speaker) stopSessions(cause func(*session) error) {
	s.sessionsMu.RLock()
	stopping := map[*session]error{}
	for _, session := range s.sessions {
		if err := cause(session); err != nil {
			stopping[session] = err
		}
	}
	s.sessionsMu.RUnlock()
	var wg sync.WaitGroup
	for session, cause := range stopping {
		wg.Go(func() { session.stop(cause) })
	}
	wg.Wait()
	for session := range stopping {
		s.sessionsMu.Lock()
		delete(s.sessions, session.address)
		s.sessionsMu.Unlock()
		if session.configured().Password != "" {
			// Where it fails the key stays, and signs what comes from a peer
			// that is not one any more, or is closed with the socket.
			_ = s.setListenPassword(session.address, "")
		}
	}
}

// setListenPassword sets the key for a peer's own calls, or removes it.
func (s *Speaker) setListenPassword(peer netip.Addr, password string) error {
	for _, l := range s.listeners {
		if l.Addr().(*net.TCPAddr).AddrPort().Addr().Is4() != peer.Is4() {
			continue
		}
		if err := setListenPassword(l, peer, password); err != nil {
			return err
		}
	}
	return nil
}

// Peers tells the state of every session, sorted by name and address.
func (s *Speaker) Peers() []PeerStatus {
	s.sessionsMu.RLock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, session := range s.sessions {
		sessions = append(sessions, session)
	}
	s.sessionsMu.RUnlock()

	counts := map[bgp.Family]int{}
	if announced, err := s.listed(); err == nil { // none once GoBGP has stopped
		for _, a := range announced {
			counts[a.family()]++
		}
	}
	all := make([]PeerStatus, 0, len(sessions))
	for _, session := range sessions {
		status, spoken := session.status()
		for _, f := range families {
			if slices.Contains(spoken, f) {
				status.Advertised += counts[f]
			}
		}
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address))
	})
	return all
}

// Close withdraws every route, waits until the withdrawals have been sent,
// says goodbye to the peers (Cease, administrative shutdown) and stops. That
// takes some milliseconds. A peer that reads nothing delays it by about three
// seconds, and by no more than the context allows: then what still stands ends
// with the process, and the error says so. The speaker cannot be used
// afterwards; closing it again does nothing.
func (s *Speaker) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.closeListeners()
	s.accepting.Wait()

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.withdrawAll(ctx)
		s.stopSessions(func(*session) error { return errShutdown })
		s.server.Stop()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("closing the BGP speaker: %w", context.Cause(ctx))
	}
}

// withdrawAll withdraws every route, and waits until the peers have been told.
// GoBGP sends from a queue and drops what is left in it when a session ends,
// without saying so; so what went out is counted on the wire.
func (s *Speaker) withdrawAll(ctx context.Context) {
	have, err := s.listed()
	if err != nil || len(have) == 0 {
		return
	}
	s.sessionsMu.RLock()
	var told []<-chan struct{}
	for _, session := range s.sessions {
		if c := session.withdrawals(have); c != nil {
			told = append(told, c)
		}
	}
	s.sessionsMu.RUnlock()
	if err := s.withdraw(have); err != nil {
		s.log.Error("bgp routes not withdrawn", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, c := range told {
		select {
		case <-c:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Speaker) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}
