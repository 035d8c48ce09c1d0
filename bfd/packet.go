package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// State is that of a session, RFC 5880 section 4.1.
type State uint8

// The states. AdminDown: its operator has switched it off, which says nothing of
// the way.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String is the state as status shows it.
func (s State) String() string {
	return [...]string{"admindown", "down", "init", "up"}[s&3]
}

// diagnostic is why a session last left the state Up, RFC 5880 section 4.1.
type diagnostic uint8

const (
	diagNone       diagnostic = 0
	diagExpired    diagnostic = 1
	diagNeighbor   diagnostic = 3
	diagAdminDown  diagnostic = 7
	packetLength              = 24
	version                   = 1
	flagPoll                  = 0x20
	flagFinal                 = 0x10
	flagAuth                  = 0x04
	flagDemand                = 0x02
	flagMultipoint            = 0x01
)

// String is the diagnostic in words.
func (d diagnostic) String() string {
	words := [...]string{"no diagnostic", "control detection time expired", "echo function failed", "neighbor signaled session down",
		"forwarding plane reset", "path down", "concatenated path down", "administratively down", "reverse concatenated path down"}
	if int(d) < len(words) {
		return words[d]
	}
	return fmt.Sprintf("diagnostic %d", d)
}

// packet is a control packet, RFC 5880 section 4.1. There is no authentication:
// the TTL keeps strangers away (RFC 5881 section 5).
type packet struct {
	diag                diagnostic
	state               State
	poll, final, demand bool
	multiplier          uint8
	// mine and yours are discriminators, each from the sender's view.
	mine, yours uint32
	// minTx is the interval at which the sender would send, minRx the shortest
	// at which it can receive; 0: it wants to receive nothing.
	minTx, minRx time.Duration
}

func (p packet) append(b []byte) []byte {
	flags := byte(p.state) << 6
	for _, f := range []struct {
		set bool
		bit byte
	}{{p.poll, flagPoll}, {p.final, flagFinal}, {p.demand, flagDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|byte(p.diag), flags, p.multiplier, packetLength)
	b = binary.BigEndian.AppendUint32(b, p.mine)
	b = binary.BigEndian.AppendUint32(b, p.yours)
	b = binary.BigEndian.AppendUint32(b, micros(p.minTx))
	b = binary.BigEndian.AppendUint32(b, micros(p.minRx))
	return binary.BigEndian.AppendUint32(b, 0) // no echo
}

func micros(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

var errPacket = errors.New("no BFD control packet")

// parse reads a packet, with the checks of RFC 5880 section 6.8.6 that need no
// session.
func parse(b []byte) (packet, error) {
	if len(b) < packetLength || b[0]>>5 != version || int(b[3]) < packetLength || int(b[3]) > len(b) {
		return packet{}, errPacket
	}
	flags := b[1]
	interval := func(at int) time.Duration {
		return time.Duration(binary.BigEndian.Uint32(b[at:])) * time.Microsecond
	}
	p := packet{
		diag: diagnostic(b[0] & 0x1f), state: State(flags >> 6),
		poll: flags&flagPoll != 0, final: flags&flagFinal != 0, demand: flags&flagDemand != 0,
		multiplier: b[2],
		mine:       binary.BigEndian.Uint32(b[4:]), yours: binary.BigEndian.Uint32(b[8:]),
		minTx: interval(12), minRx: interval(16),
	}
	switch {
	case p.multiplier == 0, p.mine == 0, flags&(flagAuth|flagMultipoint) != 0, p.poll && p.final:
		return packet{}, errPacket
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		return packet{}, errPacket
	}
	return p, nil
}
