package daemon

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/health"
)

// stopping is a daemon whose loop was asked to stop, in a world where n packets
// a second come to the VIP until the routers turn away.
type stopping struct {
	w     *world
	d     *Daemon
	hurry chan struct{}
	loop  sync.WaitGroup
	asked time.Time
	ended time.Duration
}

func stop(t *testing.T, drainTime string) *stopping {
	t.Helper()
	cfg := parse(t, strings.Replace(leastConfig, `drain_time = "0s"`, `drain_time = "`+drainTime+`"`, 1))
	s := &stopping{hurry: make(chan struct{})}
	s.w, s.d = newWorld(t, cfg)
	s.d.opts.Hurry = s.hurry
	s.w.are(cfg, health.Up)
	ctx, cancel := context.WithCancel(t.Context())
	s.loop.Go(func() {
		if err := s.d.loop(ctx); err != nil {
			t.Error(err)
		}
		s.ended = time.Since(s.asked)
	})
	// Not at the moment of a pass, or nobody could say which of them is first.
	time.Sleep(100 * time.Millisecond)
	s.traffic(10*time.Second, 200)
	s.w.since()
	s.asked = time.Now()
	cancel()
	synctest.Wait()
	return s
}

// traffic lets time pass in which n packets come every two seconds, as the
// kernel adds them up.
func (s *stopping) traffic(d time.Duration, n uint64) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Second) {
		synctest.Wait()
		s.w.receive(n)
	}
	synctest.Wait()
}

// TestStopDrains: GRACEFUL_SHUTDOWN at once, the withdrawal as soon as no packet
// comes, and an end only after a look at what came late.
func TestStopDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stop(t, "10s")
		expect(t, "at once", s.w.since(), "announce 198.51.100.1/32 with GRACEFUL_SHUTDOWN")
		v := s.w.status.VIPs[0]
		if v.Drain == nil || v.Drain.Phase != "draining" || v.Drain.PacketsPerSecond != 100 || v.Drain.Deadline.Sub(s.asked) != 10*time.Second {
			t.Errorf("status %+v, drain %+v", v, v.Drain)
		}
		if want := "stopping: 1 of 1 VIPs announced (1 draining)"; !strings.HasPrefix(s.w.status.Summary, want) {
			t.Errorf("summary %q, want %q in front", s.w.status.Summary, want)
		}
		s.traffic(2*time.Second, 40) // what was on its way
		expect(t, "while packets come", s.w.since(), "")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		expect(t, "when none has come for a moment", s.w.since(), "withdraw 198.51.100.1/32")
		if v := s.w.status.VIPs[0]; v.Drain == nil || v.Drain.Phase != "lingering" || v.Drain.PacketsPerSecond != 0 {
			t.Errorf("status %+v, drain %+v", v, v.Drain)
		}
		s.w.receive(7)
		s.loop.Wait()
		if s.ended < 4*time.Second || s.ended > 6*time.Second {
			t.Errorf("ended after %v, want the withdrawal and a look after it", s.ended)
		}
		expect(t, "at the end nothing else", s.w.since(), "")
		if want := `msg="drain over" vips=1 took=2.65s quiet_early=1 announced_again=0 late_packets_at_most=7`; !strings.Contains(s.w.log.String(), want) {
			t.Errorf("log\n%s\nwant %s", s.w.log.String(), want)
		}
		if r := s.w.status.LastDrain; r == nil || r.VIPs != 1 || r.Early != 1 || r.LatePackets != 7 || r.Seconds != 2.65 {
			t.Errorf("last drain %+v", r)
		}
	})
}

// TestStopAtOnce: whoever asks a second time does not wait for the drain.
func TestStopAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stop(t, "10m")
		s.traffic(4*time.Second, 200)
		s.w.since()
		close(s.hurry)
		s.loop.Wait()
		expect(t, "asked again", s.w.since(), "withdraw 198.51.100.1/32")
		if s.ended != 4*time.Second {
			t.Errorf("ended %v after the first time, want at the second", s.ended)
		}
		if want := `msg="drain over" vips=1 took=4s quiet_early=1`; !strings.Contains(s.w.log.String(), want) {
			t.Errorf("log\n%s\nwant %s", s.w.log.String(), want)
		}
	})
}

// TestStopWithoutDrainTime ends at once: nobody wanted to know.
func TestStopWithoutDrainTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stop(t, "0s")
		s.loop.Wait()
		expect(t, "at once", s.w.since(), "withdraw 198.51.100.1/32")
		if s.ended != 0 || strings.Contains(s.w.log.String(), "drain over") {
			t.Errorf("ended after %v, log\n%s", s.ended, s.w.log.String())
		}
	})
}

// TestMaintenanceDrain: a drain that is called off leaves nothing behind.
func TestMaintenanceDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, strings.Replace(leastConfig, `drain_time = "0s"`, `drain_time = "2s"`, 1))
		w.file.Present, w.file.Since, w.file.Reason = true, time.Now(), "new disk"
		w.tableNow[0].Received.Packets = 5
		d.pass()
		expect(t, "the file is there", w.since(), "announce 198.51.100.1/32 with GRACEFUL_SHUTDOWN")
		time.Sleep(time.Second)
		w.tableNow[0].Received.Packets = 10
		d.pass()
		w.file.Present = false
		d.pass()
		expect(t, "the file is gone", w.since(), "announce 198.51.100.1/32")
		if want := `msg="drain over" vips=1 took=0s quiet_early=0 announced_again=1`; !strings.Contains(w.log.String(), want) {
			t.Errorf("log\n%s\nwant %s", w.log.String(), want)
		}
		if d.meter.Active() {
			t.Error("something is measured still")
		}
	})
}
