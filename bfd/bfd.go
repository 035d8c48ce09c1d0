// Package bfd watches the ways to peers by Bidirectional Forwarding Detection:
// asynchronous mode, RFC 5880, over one hop (RFC 5881) and over several (RFC
// 5883). Both sides send a packet each few hundred milliseconds; when some in a
// row are missing, the way is broken, long before the hold time of BGP ends.
//
// There is no echo, no demand mode of our own and no authentication. A packet
// counts that comes from the address of a peer and, on a connected network, has
// passed no router: the TTL tells (RFC 5881 section 5). Over several hops it does
// not, because not every router sends with the highest one. There, a packet has
// to bring a number that only the peer knows before it can end a session.
//
// The room knows nothing of BGP. Whoever uses it is told of a way that broke.
package bfd

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Peer is a neighbour whose way is watched. Its address is its identity.
type Peer struct {
	Name    string // in status and log
	Address netip.Addr
	// Source is the local address of the packets; invalid: as the kernel routes.
	Source netip.Addr
	// Interval is the time from one packet to the next, both ways, 10ms to 1m.
	Interval time.Duration
	// Multiplier is how many packets in a row may be lost, 1 to 255.
	Multiplier int
	// Multihop: there may be routers in between (RFC 5883). It must be the same
	// on both sides, as each kind has a port of its own.
	Multihop bool
}

// Status is what is known of one session.
type Status struct {
	Name    string
	Address netip.Addr
	State   State
	Since   time.Time
	// Remote is the state that the peer last told; AdminDown where it has told
	// none.
	Remote State
	// Interval is the one at which packets are sent now, 0: none are. Detection
	// is how long the peer may be silent, 0: for ever, as it is not there.
	Interval, Detection time.Duration
	// Failures counts how often the session went down, other than on purpose.
	// Flapping: often, and lately.
	Failures uint64
	Flapping bool
	// LastError is why it last went down, or cannot be begun.
	LastError string
}

// Monitor watches the ways to a set of peers.
type Monitor struct {
	log     *slog.Logger
	failed  func(peer netip.Addr, reason string)
	changed func()

	mu        sync.Mutex
	closed    bool
	sessions  map[netip.Addr]*session
	listeners map[listening]*net.UDPConn
}

// Start starts a monitor without peers. It opens no socket before there is one.
//
// failed is called when a way breaks that was up, changed when a session changes
// its state; from any goroutine, and neither may block for long.
func Start(log *slog.Logger, failed func(peer netip.Addr, reason string), changed func()) *Monitor {
	return &Monitor{
		log: log, failed: failed, changed: changed,
		sessions: map[netip.Addr]*session{}, listeners: map[listening]*net.UDPConn{},
	}
}

// SetPeers makes the peers those given. Other intervals are agreed on while the
// session goes on. A session that goes, or is to be of another kind, is switched
// off on purpose, which RFC 5882 section 4.2 does not take for a failure, but
// some routers do. Where a port cannot be opened the error says
// so, and the sessions that need it are begun by the next call that can.
func (m *Monitor) SetPeers(peers []Peer) error {
	for _, p := range peers {
		if err := p.validate(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("setting BFD peers: the monitor is closed")
	}
	wanted := make(map[netip.Addr]Peer, len(peers))
	for _, p := range peers {
		wanted[p.Address] = p
	}
	for address, s := range m.sessions {
		p, ok := wanted[address]
		if ok && p.listening() == s.peer.listening() && p.Source == s.peer.Source {
			s.adopt(p)
			continue
		}
		s.stop()
		delete(m.sessions, address)
	}
	var errs []error
	needed := map[listening]bool{}
	for _, p := range peers {
		on := p.listening()
		needed[on] = true
		if m.sessions[p.Address] != nil {
			continue
		}
		if err := m.listen(on); err != nil {
			errs = append(errs, fmt.Errorf("setting BFD peer %s: %w", p.Name, err))
			continue
		}
		s, err := newSession(m, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("setting BFD peer %s: %w", p.Name, err))
			continue
		}
		m.sessions[p.Address] = s
		go s.run(p)
	}
	for on, l := range m.listeners {
		if !needed[on] {
			_ = l.Close()
			delete(m.listeners, on)
		}
	}
	return errors.Join(errs...)
}

func (p Peer) validate() error {
	switch {
	case !p.Address.IsValid() || p.Address.Is4In6() || p.Address.IsUnspecified() || p.Address.IsMulticast():
		return fmt.Errorf("setting BFD peer %s: %s is no address of a peer", p.Name, p.Address)
	case p.Source.IsValid() && p.Source.Is4() != p.Address.Is4():
		return fmt.Errorf("setting BFD peer %s: %s cannot send to %s", p.Name, p.Source, p.Address)
	case p.Interval < 10*time.Millisecond || p.Interval > time.Minute:
		return fmt.Errorf("setting BFD peer %s: interval %s is not between 10ms and 1m", p.Name, p.Interval)
	case p.Multiplier < 1 || p.Multiplier > 255:
		return fmt.Errorf("setting BFD peer %s: multiplier %d is not between 1 and 255", p.Name, p.Multiplier)
	}
	return nil
}

// Peers tells the state of every session, sorted by name and address.
func (m *Monitor) Peers() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, 0, len(m.sessions))
	for _, s := range m.sessions {
		all = append(all, s.status())
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address))
	})
	return all
}

// Close switches every session off on purpose. The monitor cannot be used afterwards; closing it again does nothing.
func (m *Monitor) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for address, s := range m.sessions {
		s.stop()
		delete(m.sessions, address)
	}
	for on, l := range m.listeners {
		_ = l.Close()
		delete(m.listeners, on)
	}
}

// dispatch hands a packet to the session that it is for, RFC 5880 section 6.8.6;
// none: it is dropped.
func (m *Monitor) dispatch(on listening, from netip.Addr, hops int, p packet) {
	m.mu.Lock()
	s := m.sessions[from]
	m.mu.Unlock()
	if s == nil || s.listening != on || on.port == portOneHop && hops != ttl {
		return
	}
	select {
	case s.packets <- p:
	default: // it is busy with others of the peer's
	}
}
