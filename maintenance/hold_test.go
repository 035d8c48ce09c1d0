package maintenance

import (
	"strings"
	"testing"
	"time"
)

// TestHold: for how long a file must stay away, after it has gone so often and so
// fast.
func TestHold(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times int
		every time.Duration
		want  time.Duration
	}{
		{"once", 1, time.Second, away},
		{"five times", 5, time.Second, away},
		{"six times", 6, time.Second, time.Second},
		{"seven times", 7, time.Second, 2 * time.Second},
		{"ten times", 10, time.Millisecond, 16 * time.Second},
		{"eleven times", 11, time.Millisecond, maxAway},
		{"for an hour, each millisecond", 3600_000, time.Millisecond, maxAway},
		{"each ten seconds, for a day", 8640, calm, away},
		{"each minute", 100, time.Minute, away},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h hold
			now := ten
			for range tt.times {
				h.there()
				now = now.Add(tt.every)
				h.gone(now)
			}
			if got := h.gone(now).Sub(now); got != tt.want {
				t.Errorf("held for %v, want %v", got, tt.want)
			}
			// However bad it was, it is forgotten in about two minutes.
			h.there()
			now = now.Add(13 * calm)
			if got := h.gone(now).Sub(now); got != away {
				t.Errorf("after two calm minutes held for %v, want %v", got, away)
			}
		})
	}
}

// patiently observes path as Watch does, by events or by a quick poll.
func patiently(t *testing.T, path string) *observed {
	t.Helper()
	return start(t, path, senses{
		poll: 50 * time.Millisecond, notify: newNotifier(path), examine: look,
		within: newDirectoryNotifier(path + servicesSuffix), patient: true,
	})
}

// TestFlappingFile: a file that comes and goes as fast as it can counts as
// there, and neither the log nor those who are told of changes are flooded.
func TestFlappingFile(t *testing.T) {
	path := t.TempDir() + "/disable"
	o := patiently(t, path)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		write(t, path, "")
		time.Sleep(time.Millisecond)
		if _, err := Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	write(t, path, "")
	if s := o.awaitPresent("at the end"); s.Err != nil {
		t.Error(s.Err)
	}
	o.Close()
	if n := o.changes(); n > 2*freely+2 {
		t.Errorf("%d changes told of", n)
	}
	if n := strings.Count(o.lines(""), "\n"); n > 2*freely+4 {
		t.Errorf("%d lines logged:\n%s", n, o.lines(""))
	}
}

// TestRemovedOnce: a file that goes once is gone within a moment, and one for
// which an operator asks at once.
func TestRemovedOnce(t *testing.T) {
	path := t.TempDir() + "/disable"
	write(t, path, "x")
	o := patiently(t, path)
	begin := time.Now()
	must2(Remove(path))
	o.awaitAbsent("removed")
	t.Logf("gone after %v", time.Since(begin))

	for range 2 * freely { // it has a bad name now
		write(t, path, "x")
		o.Refresh()
		must2(Remove(path))
		o.Refresh()
		if s := o.State(); s.Present {
			t.Fatalf("an operator asked and got %+v", s)
		}
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
