package daemon

import "time"

const (
	// quotaBurst lines of one kind may follow each other, and quotaEvery passes
	// from one to the next after that.
	quotaBurst = 5
	quotaEvery = time.Minute
)

// quota bounds lines of the log whose pace somebody else sets: another program
// that never stops, or whoever sends signals. The zero quota is a full one.
type quota struct {
	used   float64
	at     time.Time
	untold int
}

// take tells whether one more line may be written now, and how many were not
// since the last that was.
func (q *quota) take(now time.Time) (untold int, ok bool) {
	q.used = max(0, q.used-float64(now.Sub(q.at))/float64(quotaEvery))
	q.at = now
	if q.used > quotaBurst-1 {
		q.untold++
		return 0, false
	}
	q.used++
	untold, q.untold = q.untold, 0
	return untold, true
}

// words are what a line that was taken says of those that were not, and of those
// to come.
func (q *quota) words(untold int) (words []any) {
	if untold > 0 {
		words = append(words, "untold", untold)
	}
	if q.used > quotaBurst-1 {
		words = append(words, "next", "in a minute at the earliest, however often it happens")
	}
	return words
}

// quota is that of one kind of lines.
func (r *reporter) quota(what string) *quota {
	if r.quotas == nil {
		r.quotas = map[string]*quota{}
	}
	if r.quotas[what] == nil {
		r.quotas[what] = &quota{}
	}
	return r.quotas[what]
}

// ignore tells of a signal that has no effect while lb4d is stopping. Whoever
// repeats it is not told each time.
func (d *Daemon) ignore(what string) {
	quota := d.report.quota(what)
	if untold, ok := quota.take(time.Now()); ok {
		d.log.Info(what+" ignored, lb4d is stopping", quota.words(untold)...)
	}
}
