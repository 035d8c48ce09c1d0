package maintenance

import "time"

const (
	// away is how long a file must have been away for at least. It is short
	// enough for nobody to notice, and longer than tools take that remove a
	// file and write it anew.
	away = 100 * time.Millisecond
	// freely is how often a file may go, lately, without more than that.
	freely = 5
	// maxAway bounds what a file that comes and goes has to be away for.
	maxAway = 30 * time.Second
	// calm is the time after which one of the removals is forgotten.
	calm = 10 * time.Second
)

// hold is for how long a file that is away still counts as there. A file that
// appears counts at once; one that goes brings traffic back, which should not
// happen a hundred times a second because some script is broken. The zero hold
// is that of a file that has never gone.
type hold struct {
	count int       // removals lately, as of last
	last  time.Time // of them
	since time.Time // since when it is away; zero: it is there
}

// there notes that the file is there.
func (h *hold) there() { h.since = time.Time{} }

// gone notes that the file is away, and returns until when it counts as there.
func (h *hold) gone(now time.Time) time.Time {
	if h.since.IsZero() {
		h.count = max(0, h.count-int(now.Sub(h.last)/calm)) + 1
		h.since, h.last = now, now
	}
	return h.since.Add(h.wait())
}

// flapping tells that the file has gone more often than anybody means it.
func (h *hold) flapping() bool { return h.count > freely }

func (h *hold) wait() time.Duration {
	if !h.flapping() {
		return away
	}
	wait := time.Second
	for range h.count - freely - 1 {
		if wait >= maxAway {
			break
		}
		wait *= 2
	}
	// Beyond what the bound needs, removals only take longer to be forgotten.
	h.count = min(h.count, freely+7)
	return min(wait, maxAway)
}
