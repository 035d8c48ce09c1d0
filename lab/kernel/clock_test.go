package kernel_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"time"

	"lb4d/lab/kernel"
)

// clock sleeps and works for a while when asked, and says how long it took by
// its own clocks.
func clock([]string) int {
	l, err := kernel.Listen()
	if err != nil {
		return 1
	}
	c, err := l.Accept()
	if err != nil {
		return 1
	}
	for in := bufio.NewScanner(c); in.Scan(); {
		start := time.Now()
		if in.Text() == "sleep" {
			time.Sleep(2 * time.Second)
		} else {
			for time.Since(start) < 2*time.Second {
			}
		}
		end := time.Now()
		fmt.Fprintln(c, end.Sub(start).Nanoseconds(), end.Round(0).Sub(start.Round(0)).Nanoseconds())
	}
	return 0
}

// TestClock: a guest's two seconds are two seconds, asleep and at work. Checks
// and hold timers that run inside are only worth something then.
func TestClock(t *testing.T) {
	need(t, kernel.UserMode)
	m := boot(t, kernel.Options{Kind: kernel.UserMode, Command: []string{os.Args[0], "clock"}})
	c, err := m.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, what := range []string{"sleep", "work"} {
		start := time.Now()
		fmt.Fprintln(c, what)
		var mono, wall time.Duration
		if _, err := fmt.Fscan(c, &mono, &wall); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		t.Logf("%s: %v here, %v by the guest's monotonic clock, %v by its wall clock", what, took, mono, wall)
		// A busy machine may take longer to answer, never less time.
		if took < mono-50*time.Millisecond || mono < 2*time.Second || (mono-wall).Abs() > 50*time.Millisecond || took > mono+2*time.Second {
			t.Errorf("%s: clocks differ: %v here, %v and %v there", what, took, mono, wall)
		}
	}
}
