package bfd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMachine is the table of RFC 5880 section 6.8.6, with what each change
// means for the way.
func TestMachine(t *testing.T) {
	p := func(s State) packet {
		return packet{state: s, mine: 9, yours: 5, multiplier: 3, minTx: time.Second, minRx: time.Second}
	}
	for _, tt := range []struct {
		from State
		heard
		want string
	}{
		{Down, says(AdminDown), "down"},
		{Down, says(Down), "init"},
		{Down, says(Init), "up"},
		{Down, says(Up), "down"}, // it has yet to hear that this side is down
		{Down, nothing, "down"},
		{Init, says(AdminDown), "down (switched off by the peer)"},
		{Init, says(Down), "init"},
		{Init, says(Init), "up"},
		{Init, says(Up), "up"},
		{Init, nothing, "down"},
		{Up, says(AdminDown), "down (switched off by the peer)"},
		{Up, says(Down), "down, failed (the peer is down: no diagnostic)"},
		{Up, says(Init), "up"},
		{Up, says(Up), "up"},
		{Up, nothing, "down, failed (nothing heard for 3s)"},
	} {
		t.Run(fmt.Sprintf("%s hears %s", tt.from, tt.heard), func(t *testing.T) {
			m := newMachine(Peer{Interval: 300 * time.Millisecond, Multiplier: 3}, 5)
			m.state, m.remote = tt.from, p(Up)
			var c change
			if tt.heard == nothing {
				c = m.expire()
			} else {
				c = m.receive(p(State(tt.heard)))
			}
			got := c.to.String()
			if c.failed {
				got += ", failed"
			}
			if c.reason != "" {
				got += " (" + c.reason + ")"
			}
			if got != tt.want || c.to != m.state || c.from != tt.from {
				t.Errorf("got %s (%+v), want %s", got, c, tt.want)
			}
		})
	}
}

// heard is a state that a peer tells, or nothing.
type heard int

const nothing heard = -1

func says(s State) heard { return heard(s) }

func (h heard) String() string {
	if h == nothing {
		return "nothing"
	}
	return State(h).String()
}

// TestIntervals: slow until it is up; then the slower of both sides' wishes, and
// the detection time by the peer's multiplier.
func TestIntervals(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name                    string
		state                   State
		remote                  packet
		transmission, detection time.Duration
	}{
		{"nobody there", Down, packet{}, time.Second, 0},
		{"coming up", Init, packet{state: Down, mine: 9, multiplier: 3, minTx: time.Second, minRx: 100 * ms}, time.Second, 3 * time.Second},
		{"up, the peer is as fast", Up, packet{state: Up, mine: 9, multiplier: 3, minTx: 300 * ms, minRx: 300 * ms}, 300 * ms, 900 * ms},
		{"up, the peer is faster", Up, packet{state: Up, mine: 9, multiplier: 5, minTx: 50 * ms, minRx: 50 * ms}, 300 * ms, 1500 * ms},
		{"up, the peer sends more slowly", Up, packet{state: Up, mine: 9, multiplier: 3, minTx: time.Second, minRx: 100 * ms}, 300 * ms, 3 * time.Second},
		{"up, the peer hears more slowly", Up, packet{state: Up, mine: 9, multiplier: 3, minTx: 300 * ms, minRx: time.Second}, time.Second, 900 * ms},
		{"up, the peer wants none", Up, packet{state: Up, mine: 9, multiplier: 3, minTx: 300 * ms}, 0, 900 * ms},
		{"up, on demand", Up, packet{state: Up, mine: 9, multiplier: 3, minTx: 300 * ms, minRx: 300 * ms, demand: true}, 0, 900 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(Peer{Interval: 300 * ms, Multiplier: 3}, 5)
			m.state, m.remote = tt.state, tt.remote
			if m.transmission() != tt.transmission || m.detection() != tt.detection {
				t.Errorf("sends each %s, detects in %s; want %s, %s", m.transmission(), m.detection(), tt.transmission, tt.detection)
			}
		})
	}
}

// TestPoll: the intervals that come with Up are polled for until the peer has
// confirmed them, and a session that is lost begins without the peer's number.
func TestPoll(t *testing.T) {
	m := newMachine(Peer{Interval: 300 * time.Millisecond, Multiplier: 3}, 5)
	from := func(s State, final bool) packet {
		return packet{state: s, mine: 9, yours: 5, multiplier: 3, minTx: time.Second, minRx: time.Second, final: final}
	}
	type sent struct {
		State State
		Poll  bool
		Yours uint32
		MinTx time.Duration
	}
	now := func() sent {
		p := m.packet(false)
		return sent{p.state, p.poll, p.yours, p.minTx}
	}
	var got []sent
	got = append(got, now())
	m.receive(from(Down, false))
	got = append(got, now())
	m.receive(from(Init, false))
	got = append(got, now())
	m.receive(from(Up, true))
	got = append(got, now())
	m.expire()
	got = append(got, now())
	want := []sent{
		{Down, false, 0, time.Second}, {Init, false, 9, time.Second}, {Up, true, 9, 300 * time.Millisecond},
		{Up, false, 9, 300 * time.Millisecond}, {Down, false, 0, time.Second},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	if p := m.packet(true); !p.final || p.poll {
		t.Errorf("the answer to a poll is %+v", p)
	}
	if p := m.goodbye(); p.state != AdminDown || p.diag != diagAdminDown {
		t.Errorf("the goodbye is %+v", p)
	}
}

// TestParse: what is written reads the same, and what is no packet is refused.
func TestParse(t *testing.T) {
	good := packet{diag: diagExpired, state: Up, poll: true, demand: true, multiplier: 3, mine: 7, yours: 8,
		minTx: 300 * time.Millisecond, minRx: 4 * time.Second}
	if got, err := parse(good.append(nil)); err != nil || got != good {
		t.Errorf("got %+v, error %v, want %+v", got, err, good)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                      func([]byte) []byte { return nil },
		"a byte too short":             func(b []byte) []byte { return b[:23] },
		"version 0":                    func(b []byte) []byte { b[0] = 0; return b },
		"a length of 23":               func(b []byte) []byte { b[3] = 23; return b },
		"a length past its end":        func(b []byte) []byte { b[3] = 25; return b },
		"a multiplier of 0":            func(b []byte) []byte { b[2] = 0; return b },
		"multipoint":                   func(b []byte) []byte { b[1] |= flagMultipoint; return b },
		"authentication":               func(b []byte) []byte { b[1] |= flagAuth; return b },
		"poll and final at once":       func(b []byte) []byte { b[1] |= flagFinal; return b },
		"no discriminator":             func(b []byte) []byte { copy(b[4:8], make([]byte, 4)); return b },
		"up without our discriminator": func(b []byte) []byte { copy(b[8:12], make([]byte, 4)); return b },
	} {
		if got, err := parse(spoil(good.append(nil))); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		b := make([]byte, random.IntN(40))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if len(b) > 3 {
			b[0], b[3] = b[0]&0x1f|version<<5, packetLength
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		m := newMachine(Peer{Interval: time.Second, Multiplier: 3}, 5)
		m.receive(p)
		if m.transmission() < 0 || m.detection() <= 0 && p.minTx >= 0 && m.remote.mine == 0 {
			t.Errorf("%+v: sends each %s, detects in %s", p, m.transmission(), m.detection())
		}
	})
}

// TestFlaps: three failures in five minutes are told once, until there are five
// minutes without.
func TestFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flaps
		var began []int
		for i, pause := range []time.Duration{0, 2 * time.Minute, 2 * time.Minute, time.Minute, 4 * time.Minute, 10 * time.Minute, time.Minute, time.Minute} {
			time.Sleep(pause)
			if f.note(time.Now()) {
				began = append(began, i)
			}
		}
		if diff := cmp.Diff([]int{2, 7}, began); diff != "" {
			t.Errorf("began to flap with (-want +got):\n%s", diff)
		}
		if !f.flapping(time.Now()) {
			t.Error("does not flap after three failures in two minutes")
		}
		time.Sleep(flapWindow)
		if f.flapping(time.Now()) {
			t.Error("flaps after five minutes without a failure")
		}
	})
}
