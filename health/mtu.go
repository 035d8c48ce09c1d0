package health

import (
	"fmt"
	"time"
)

// Full-size packets are asked for less often than whether a target lives: what
// they depend on changes by somebody's hand. Both bounds hold, since the kernel
// of a target sends each host one ICMP error a second, and those are what a
// probe is answered with.
const (
	// mtuEvery is how many intervals pass between two probes.
	mtuEvery = 10
	// mtuApart is the time that passes at least.
	mtuApart = 10 * time.Second
	// mtuAgain is the time where the last one failed, or where the target has
	// just come up: somebody may be waiting for the outcome.
	mtuAgain = 3 * time.Second
)

// mtuWait is the time from the start of one probe of full-size packets to the
// next. Probes start on the ticks of the check; half an interval is taken off,
// so that a tick that comes a little early is not passed over.
func mtuWait(interval time.Duration, soon bool) time.Duration {
	wait := max(mtuEvery*interval, mtuApart)
	if soon {
		wait = max(interval, mtuAgain)
	}
	return wait - interval/2
}

// mtuAnswer is what one probe of full-size packets found.
type mtuAnswer struct {
	state MTUState
	// certain tells that a failure needs no second witness: a router, or IPVS
	// itself, has said that the packet is too large.
	certain bool
	words   string
}

// nextMTU is the status after an answer that came at now. It changes nothing but
// the copy it returns.
//
// A failure that rests on silence alone may be a lost packet, so it counts after
// Fall in a row, and so does one that leaves nothing to tell, where something is
// known. All else counts at once.
func (s Status) nextMTU(answer mtuAnswer, check Check, now time.Time) Status {
	if answer.state == MTUUnknown && s.MTU != MTUUnknown {
		// The words stay too: they are the reason of what is known.
		if s.MTUUntold++; s.MTUUntold < check.Fall {
			return s
		}
	}
	s.MTUAnswer, s.MTUUntold = answer.words, 0
	if answer.state != MTUFailed {
		s.MTUFailures = 0
	} else if s.MTUFailures++; !answer.certain && s.MTUFailures < check.Fall {
		return s
	}
	if s.MTU != answer.state {
		s.MTU, s.MTUSince = answer.state, now
	}
	return s
}

// withMTU is the answer of a check that a target without room for full-size
// packets does not pass. One that drains stays so, as it takes no new flows
// either way.
func (s Status) withMTU(answer Answer, check Check) Answer {
	if check.Through != nil && check.MTURequired && s.MTU == MTUFailed && answer.Verdict == Pass {
		answer.Verdict, answer.Words = Fail, s.MTUAnswer
	}
	return answer
}

// defaultMTU is the size of the largest packets that come from the Internet.
const defaultMTU = 1500

// headers is the size of the headers of IP and TCP without options, which the
// MSS leaves out (RFC 6691).
func (t *Through) headers() int { return t.ipHeader() + 20 }

func (t *Through) ipHeader() int {
	if t.VIP.Is4() {
		return 20
	}
	return 40
}

// full is the size of the largest packet that a user sends to a target that
// announces mss. A smaller one may be its way to make room for the
// encapsulation, and then is as good as a larger underlay.
func (t *Through) full(mss int) int {
	mtu := t.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	return min(mtu, mss+t.headers())
}

func (t *Through) overhead(target Target) int {
	switch {
	case t.Overhead != 0:
		return t.Overhead
	case target.Addr.Unmap().Is4():
		return 20
	}
	return 40
}

// The words say what to change, and to which value.

func mtuFits(full int) mtuAnswer {
	return mtuAnswer{state: MTUOK, words: fmt.Sprintf("full-size packets (%d bytes) get through", full)}
}

// mtuTooBig: somebody on the way said that the packet is too large, and that
// room would have been left for it; 0 where that was not said.
func mtuTooBig(full, room int, target Target, t *Through) mtuAnswer {
	carries, advmss := "", ""
	if room > t.headers() {
		carries = fmt.Sprintf(", which carries %d", room)
		advmss = fmt.Sprintf(" to %d", room-t.headers())
	}
	return mtuAnswer{state: MTUFailed, certain: true, words: fmt.Sprintf(
		"full-size packets (%d bytes) do not get through the tunnel%s; raise the underlay's MTU to %d or lower advmss on the LB7%s",
		full, carries, full+t.overhead(target), advmss)}
}

func mtuLost(full int, target Target, t *Through) mtuAnswer {
	return mtuAnswer{state: MTUFailed, words: fmt.Sprintf(
		"full-size packets (%d bytes) get lost in the tunnel; does the underlay carry %d bytes all the way? else lower advmss on the LB7",
		full, full+t.overhead(target))}
}

func mtuUntold(format string, args ...any) mtuAnswer {
	return mtuAnswer{words: "full-size packets: " + fmt.Sprintf(format, args...)}
}
