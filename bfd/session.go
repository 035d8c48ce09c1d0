package bfd

import (
	crypto "crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// goodbyes is how often a peer is told that the session is switched off.
const goodbyes = 3

// session keeps one peer watched until it is stopped.
type session struct {
	monitor   *Monitor
	peer      Peer // Monitor's own; the session's is in its goroutine
	listening listening
	log       *slog.Logger
	packets   chan packet
	adopting  chan Peer
	stopping  chan struct{}
	ended     chan struct{}

	socket *net.UDPConn // nil: to be opened

	mu    sync.Mutex
	m     *machine
	since time.Time
	flaps flaps
	last  string
}

func newSession(m *Monitor, p Peer) (*session, error) {
	// A discriminator that cannot be guessed is what a stranger lacks who could
	// send from the peer's address.
	var b [4]byte
	if _, err := crypto.Read(b[:]); err != nil {
		return nil, fmt.Errorf("choosing a discriminator: %w", err)
	}
	d := max(1, binary.BigEndian.Uint32(b[:]))
	return &session{
		monitor: m, peer: p, listening: p.listening(),
		log:      m.log.With("peer", p.Name, "address", p.Address),
		packets:  make(chan packet, 8),
		adopting: make(chan Peer),
		stopping: make(chan struct{}), ended: make(chan struct{}),
		m: newMachine(p, d), since: time.Now(),
	}, nil
}

// stop tells the peer that the session is switched off, and returns when that
// is sent.
func (s *session) stop() {
	close(s.stopping)
	<-s.ended
}

// adopt has the session go on with other intervals, or under another name.
func (s *session) adopt(p Peer) {
	if p == s.peer {
		return
	}
	s.peer = p
	s.adopting <- p
}

// run sends and listens.
func (s *session) run(peer Peer) {
	defer close(s.ended)
	send, silence := time.NewTimer(0), time.NewTimer(time.Hour)
	defer send.Stop()
	defer silence.Stop()
	silence.Stop()
	var deadline time.Time // when the detection time is over; zero: it does not run
	for {
		select {
		case <-s.stopping:
			// More than once, because a peer that misses it would call the way
			// broken.
			for range goodbyes {
				s.send(peer, s.locked(s.m.goodbye))
			}
			if s.socket != nil {
				_ = s.socket.Close()
			}
			return
		case <-send.C:
			s.send(peer, s.locked(func() packet { return s.m.packet(false) }))
			s.arm(send, peer)
		case peer = <-s.adopting:
			s.mu.Lock()
			s.log = s.monitor.log.With("peer", peer.Name, "address", peer.Address)
			s.m.adopt(peer)
			s.mu.Unlock()
			s.send(peer, s.locked(func() packet { return s.m.packet(false) }))
			s.arm(send, peer)
		case p := <-s.packets:
			if !s.m.belongs(p) {
				continue
			}
			was := s.m.transmission()
			c, flapping := s.change(func() change { return s.m.receive(p) })
			s.tell(peer, c, flapping)
			if p.poll {
				s.send(peer, s.locked(func() packet { return s.m.packet(true) }))
			}
			if s.m.transmission() != was {
				s.arm(send, peer) // the next one is due sooner, or later
			}
			if d := s.m.detection(); d > 0 {
				deadline = time.Now().Add(d)
				silence.Reset(d)
			}
		case <-silence.C:
			if late := time.Since(deadline); late > peer.Interval && len(s.packets) == 0 {
				// This process has stood still itself, and so may have the one
				// that reads the socket.
				deadline = time.Now().Add(peer.Interval)
				silence.Reset(peer.Interval)
				continue
			}
			if len(s.packets) > 0 {
				deadline = time.Now()
				silence.Reset(0)
				continue
			}
			was := s.m.transmission()
			c, flapping := s.change(s.m.expire)
			s.tell(peer, c, flapping)
			if s.m.transmission() != was {
				s.arm(send, peer)
			}
		}
	}
}

// arm has the next packet sent after the interval, less up to a quarter of it:
// sessions that begin together must not stay in step (RFC 5880 section 6.8.7).
func (s *session) arm(send *time.Timer, peer Peer) {
	d := s.m.transmission()
	if d == 0 {
		// The peer wants none. It may change its mind, which a packet tells.
		send.Stop()
		return
	}
	most := 1.0
	if peer.Multiplier == 1 {
		most = 0.9
	}
	send.Reset(time.Duration((0.75 + rand.Float64()*(most-0.75)) * float64(d)))
}

// change changes the machine, which only the session's own goroutine does, and
// notes what came of it.
func (s *session) change(f func() change) (c change, flapping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = f()
	now := time.Now()
	if c.from != c.to {
		s.since = now
	}
	if c.failed {
		flapping = s.flaps.note(now)
	}
	if c.reason != "" {
		s.last = c.reason
	}
	if c.to == Up {
		s.last = ""
	}
	return c, flapping
}

func (s *session) locked(f func() packet) packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// tell tells of a change.
func (s *session) tell(peer Peer, c change, flapping bool) {
	switch {
	case c.from == c.to:
		return
	case c.failed:
		s.monitor.failed(peer.Address, c.reason)
		s.log.Warn("bfd session down", "reason", c.reason)
	case c.from == Up:
		s.log.Info("bfd session down", "reason", c.reason)
	case c.to == Up:
		s.log.Info("bfd session up", "detection", s.m.detection())
	}
	if flapping {
		s.log.Warn("bfd session flaps", "failures", flapCount, "within", flapWindow,
			"reason", "the way loses packets, or this host or the peer is too busy; a longer interval rides it out")
	}
	s.monitor.changed()
}

// send sends a packet. One that cannot be sent is as good as lost: the peer will
// notice, and the next one is tried with a new socket.
func (s *session) send(peer Peer, p packet) {
	if s.socket == nil {
		socket, err := dial(peer)
		if err != nil {
			s.unsent(err)
			return
		}
		s.socket = socket
	}
	if _, err := s.socket.Write(p.append(nil)); err != nil && !refused(err) {
		_ = s.socket.Close()
		s.socket = nil
		s.unsent(err)
	}
}

func (s *session) unsent(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.state != Up {
		s.last = fmt.Sprintf("sending: %s", socketError(err))
	}
}

func (s *session) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		Name: s.peer.Name, Address: s.peer.Address,
		State: s.m.state, Since: s.since, Remote: s.m.remote.state,
		Interval: s.m.transmission(), Detection: s.m.detection(),
		Failures: s.flaps.count, Flapping: s.flaps.flapping(time.Now()),
		LastError: s.last,
	}
}
