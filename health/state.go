package health

import "time"

// Verdict is what one probe found.
type Verdict int

const (
	// Fail: no answer in time, or one that the check does not accept.
	Fail Verdict = iota
	// Drain: the target is alive and asks for no new flows.
	Drain
	// Pass: the target is fit for new flows.
	Pass
)

// Answer is the outcome of one probe.
type Answer struct {
	Verdict Verdict
	// Words become Status.LastAnswer.
	Words   string
	Latency time.Duration
	// mss is the MSS that the target announced, where the probe went through
	// the tunnel; 0: not known.
	mss int
}

// Next is the status after an answer that came at now. It changes nothing but
// the copy it returns.
//
// The rules, in the order of what an operator may ask:
//
//   - The first answer decides alone. A start would otherwise take Rise
//     intervals before anything is announced. Only a failure of a target that is
//     presumed up does not: it is the first of Fall.
//   - An answer that asks for drain is obeyed at once, from every state: it was
//     meant, and nothing is broken by obeying a moment too early.
//   - Fall failures in a row mean Down; fewer leave the state as it is, since
//     one lost packet must not move flows.
//   - A pass means Up when the last Rise answers came without a failure between
//     them. So a target leaves Down after Rise answers, and Draining with its
//     first pass, because it answered all along while it drained. Only where it
//     failed a moment ago does leaving Draining take the full run; otherwise a
//     target that starts with a single 503 would slip past Rise.
func (s Status) Next(answer Answer, check Check, now time.Time) Status {
	s.LastCheck, s.LastAnswer, s.Latency = now, answer.Words, answer.Latency
	s.ChecksTotal++
	if answer.Verdict == Fail {
		if s.Failures == 0 {
			s.FailingSince = now
		}
		s.Failures++
		s.Successes = 0
		s.FailedTotal++
	} else {
		s.Successes++
		s.Failures = 0
		s.FailingSince = time.Time{}
	}
	if state := s.decide(answer.Verdict, check); state != s.State {
		s.State, s.Since = state, now
	}
	return s
}

// decide is the state that follows a verdict already counted in the runs.
func (s Status) decide(v Verdict, check Check) State {
	switch {
	case v == Drain:
		return Draining
	case v == Pass && (s.State == Unknown || s.Successes >= check.Rise):
		return Up
	case v == Fail && s.State == Unknown && check.PresumedUp && s.Failures < check.Fall:
		return Up
	case v == Fail && (s.State == Unknown || s.Failures >= check.Fall):
		return Down
	}
	return s.State
}
