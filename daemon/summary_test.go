package daemon

import (
	"strings"
	"testing"

	"lb4d/control"
	"lb4d/health"
)

// TestSummaryOfManyReasons: the second line of the status stays one that people
// read, however many services fail.
func TestSummaryOfManyReasons(t *testing.T) {
	st := &control.Status{Errors: []string{"adding route: no such device"}}
	for _, reason := range []string{"mail has 0 of 1 members up", "www has 0 of 2 members up", "www has 0 of 2 members up", "dns has 0 of 1 members up", "api has 0 of 1 members up"} {
		st.VIPs = append(st.VIPs, control.VIP{State: "withdrawn", Reason: reason})
	}
	want := "0 of 5 VIPs announced to 0 of 0 peers, 0 of 0 members up; withdrawn: api has 0 of 1 members up; " +
		"withdrawn: dns has 0 of 1 members up; and for 2 more reasons; 1 error"
	if got := summary(st, 0); got != want {
		t.Errorf("summary is\n%s\nwant\n%s", got, want)
	}
	if got, want := summary(&control.Status{State: "starting"}, 1), "starting: waiting for the first answer of 1 check"; got != want {
		t.Errorf("summary is %q, want %q", got, want)
	}
}

// TestLogOfFailure: what nobody has asked for is a warning, and what somebody has
// is none (TestLog).
func TestLogOfFailure(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	w.are(cfg, health.Down)
	w.log.Reset()
	d.pass()
	expect(t, "log", w.log.String(), `
level=INFO msg="ipvs: 2 edit destination" first="edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)"
level=WARN msg="service not forwarding" service=www reason="www has 0 of 2 members up, quorum 1"
level=WARN msg="vip withdrawn" vips=198.51.100.1 reason="www has 0 of 2 members up, quorum 1"
`)
}

// TestLogOfFailureAtStart: a start at which no member answers ends with the reason,
// and not with the wait for the first answers.
func TestLogOfFailureAtStart(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	d.pass()
	w.are(cfg, health.Down)
	w.log.Reset()
	d.pass()
	d.pass()
	if got, want := strings.Count(w.log.String(), "level=WARN msg=\"vip not announced yet\" vips=198.51.100.1 reason=\"www has 0 of 2 members up, quorum 1\""), 1; got != want {
		t.Errorf("told %d times, want %d:\n%s", got, want, w.log.String())
	}
}
