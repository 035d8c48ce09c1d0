package bfd

import "time"

const (
	// A session flaps that fails flapCount times within flapWindow, and until
	// there has been no failure for as long: the way is bad rather than gone, and
	// each failure costs a BGP session.
	flapCount  = 3
	flapWindow = 5 * time.Minute
)

// flaps are the last failures of a session.
type flaps struct {
	last  [flapCount]time.Time // a ring
	count uint64
	began bool // with some failure, it has begun to flap
}

// note takes a failure in, and reports whether the session has begun to flap
// with it.
func (f *flaps) note(now time.Time) (began bool) {
	was := f.flapping(now)
	f.last[f.count%flapCount] = now
	f.count++
	oldest := f.last[f.count%flapCount]
	f.began = was || f.count >= flapCount && now.Sub(oldest) < flapWindow
	return f.began && !was
}

// flapping tells whether it does.
func (f *flaps) flapping(now time.Time) bool {
	return f.began && now.Sub(f.last[(f.count+flapCount-1)%flapCount]) < flapWindow
}
