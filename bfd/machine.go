package bfd

import (
	"fmt"
	"time"
)

// slow is the least interval while a session is not up, RFC 5880 section 6.8.3.
const slow = time.Second

// machine is one session's state machine: it knows no clock and no socket.
type machine struct {
	interval   time.Duration
	multiplier uint8
	// held is the interval before interval, until the peer has confirmed that it
	// knows the new one: what either side counts on lasts so long (RFC 5880
	// section 6.8.3). 0: there is none.
	held time.Duration

	state State
	diag  diagnostic
	mine  uint32
	// remote is the peer's last packet. Its mine is 0 where there is none, or
	// where it is too old to count.
	remote  packet
	polling bool // until the peer has confirmed the intervals that come with Up
}

func newMachine(p Peer, discriminator uint32) *machine {
	return &machine{interval: p.Interval, multiplier: uint8(p.Multiplier), state: Down, mine: discriminator}
}

// belongs tells whether a packet is the peer's. While the session is up that is
// the one that knows our discriminator or has kept its own: whoever can but send
// from the peer's address knows neither. A peer that has restarted has a new one,
// and its silence tells of that.
func (m *machine) belongs(p packet) bool {
	return p.yours == m.mine || p.yours == 0 && (m.state != Up || p.mine == m.remote.mine)
}

// change is what a packet, or its absence, has made of the session.
type change struct {
	from, to State
	// failed tells that the way is to be taken for broken, and reason why. A
	// peer that switches the session off says nothing of the way (RFC 5882
	// section 4.2).
	failed bool
	reason string
}

// receive takes a packet in that belongs to the session.
func (m *machine) receive(p packet) change {
	c := change{from: m.state}
	m.remote = p
	if p.final {
		m.polling, m.held = false, 0
	}
	switch {
	case p.state == AdminDown:
		if m.state != Down {
			m.down(diagNeighbor)
			c.reason = "switched off by the peer"
		}
	case m.state == Down && p.state == Down:
		m.state = Init
	case m.state == Down && p.state == Init, m.state == Init && (p.state == Init || p.state == Up):
		m.state, m.diag, m.polling = Up, diagNone, true
	case m.state == Up && p.state == Down:
		m.down(diagNeighbor)
		c.failed, c.reason = true, fmt.Sprintf("the peer is down: %s", p.diag)
	}
	c.to = m.state
	return c
}

// expire ends the session because nothing has come for the detection time.
func (m *machine) expire() change {
	c := change{from: m.state, failed: m.state == Up}
	if m.state == Up {
		c.reason = fmt.Sprintf("nothing heard for %s", m.detection())
	}
	if m.state != Down {
		m.down(diagExpired)
	}
	m.remote = packet{} // the discriminator too, RFC 5880 section 6.8.1
	c.to = m.state
	return c
}

func (m *machine) down(d diagnostic) { m.state, m.diag, m.polling, m.held = Down, d, false, 0 }

// adopt changes the intervals of a session that goes on.
func (m *machine) adopt(p Peer) {
	if m.state == Up && p.Interval != m.interval {
		m.held, m.polling = m.interval, true
	}
	m.interval, m.multiplier = p.Interval, uint8(p.Multiplier)
}

// desired is the interval at which this side would send.
func (m *machine) desired() time.Duration {
	if m.state == Up {
		return m.interval
	}
	return max(m.interval, slow)
}

// transmission is the interval at which it does; 0: the peer wants none.
func (m *machine) transmission() time.Duration {
	if m.remote.mine != 0 && (m.remote.minRx == 0 || m.remote.demand && m.state == Up && m.remote.state == Up) {
		return 0
	}
	d := m.desired()
	if m.held > 0 {
		d = min(d, m.held)
	}
	return max(d, m.remote.minRx)
}

// detection is how long the peer may be silent, RFC 5880 section 6.8.4; 0: for
// ever, as there is nothing to lose.
func (m *machine) detection() time.Duration {
	if m.remote.mine == 0 {
		return 0
	}
	return time.Duration(m.remote.multiplier) * max(m.interval, m.held, m.remote.minTx)
}

// packet is what to send now.
func (m *machine) packet(final bool) packet {
	return packet{
		diag: m.diag, state: m.state, multiplier: m.multiplier,
		mine: m.mine, yours: m.remote.mine,
		poll: m.polling && !final, final: final,
		minTx: m.desired(), minRx: m.interval,
	}
}

// goodbye says that the session is switched off on purpose.
func (m *machine) goodbye() packet {
	m.state, m.diag, m.polling = AdminDown, diagAdminDown, false
	return m.packet(false)
}
