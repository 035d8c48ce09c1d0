package health

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// verdicts are the words that the tables below use.
var verdicts = map[string]Answer{
	"pass":  {Verdict: Pass, Words: "200 OK in 1ms", Latency: time.Millisecond},
	"drain": {Verdict: Drain, Words: "503 Service Unavailable (drain)", Latency: time.Millisecond},
	"fail":  {Verdict: Fail, Words: "connection refused"},
}

// TestStates reads left to right: after each answer, the state.
func TestStates(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rise, fall int
		answers    string
		want       string
	}{
		// A start.
		{"a passing first answer is enough", 5, 5, "pass", "up"},
		{"a drain as first answer is enough", 5, 5, "drain", "draining"},
		{"a failure as first answer is enough", 5, 5, "fail", "down"},

		// Up.
		{"up stays up", 2, 3, "pass pass pass", "up up up"},
		{"up survives fewer failures than fall", 2, 3, "pass fail fail pass", "up up up up"},
		{"failures count only in a row", 2, 3, "pass fail fail pass fail fail", "up up up up up up"},
		{"up goes down after fall failures", 2, 3, "pass fail fail fail", "up up up down"},
		{"with fall 1 the first failure is enough", 2, 1, "pass fail", "up down"},
		{"up drains at the first word", 2, 3, "pass drain", "up draining"},
		{"up drains between failures too", 2, 3, "pass fail fail drain", "up up up draining"},
		{"a drain ends the run of failures", 2, 3, "pass fail fail drain fail fail", "up up up draining draining draining"},

		// Draining.
		{"draining stays so while asked", 2, 3, "drain drain drain", "draining draining draining"},
		{"the first pass ends a drain", 3, 3, "pass pass drain pass", "up up draining up"},
		{"the first pass ends a long drain", 3, 3, "drain drain drain pass", "draining draining draining up"},
		{"draining survives fewer failures than fall", 2, 3, "drain fail fail drain", "draining draining draining draining"},
		{"draining goes down after fall failures", 2, 3, "drain fail fail fail", "draining draining draining down"},
		{"after a failure a drain ends with the full run", 2, 3, "drain drain fail pass pass", "draining draining draining draining up"},
		{"a drain just begun counts towards rise", 3, 3, "drain pass pass", "draining draining up"},

		// Down.
		{"down stays down", 2, 3, "fail fail fail fail fail", "down down down down down"},
		{"down comes up after rise passes", 2, 3, "fail pass pass", "down down up"},
		{"passes count only in a row", 3, 3, "fail pass pass fail pass pass pass", "down down down down down down up"},
		{"with rise 1 the first pass is enough", 1, 3, "fail pass", "down up"},
		{"down drains at the first word", 2, 3, "fail drain", "down draining"},
		{"a single drain does not evade rise", 3, 3, "fail drain pass pass", "down draining draining up"},
		{"down by way of draining goes down only after fall", 2, 2, "fail drain fail fail", "down draining draining down"},

		// A restart of the process that probes.
		{"presumed up survives fewer failures than fall", 2, 3, "fail fail pass", "up up up"},
		{"presumed up goes down after fall failures", 2, 3, "fail fail fail fail", "up up down down"},
		{"presumed up comes back like any other", 2, 3, "fail fail fail pass pass", "up up down down up"},
		{"presumed up drains at the first word", 2, 3, "drain", "draining"},
		{"presumed up, with fall 1 the first failure is enough", 2, 1, "fail", "down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := Check{Rise: tt.rise, Fall: tt.fall, PresumedUp: strings.HasPrefix(tt.name, "presumed up")}
			var s Status
			var got []string
			for _, word := range strings.Fields(tt.answers) {
				s = s.Next(verdicts[word], check, time.Now())
				got = append(got, s.State.String())
			}
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Errorf("states after %q with rise %d, fall %d (-want +got):\n%s",
					tt.answers, tt.rise, tt.fall, diff)
			}
		})
	}
}

// TestStatusKeepsCount follows every field through one outage, one answer a
// second.
func TestStatusKeepsCount(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	check := Check{Rise: 2, Fall: 2}
	const (
		ok      = "200 OK in 1ms"
		refused = "connection refused"
		drain   = "503 Service Unavailable (drain)"
		ms      = time.Millisecond
	)
	s := Status{Since: start}
	for i, step := range []struct {
		word string
		want Status
	}{
		{"pass", Status{State: Up, Since: at(1), LastCheck: at(1), LastAnswer: ok, Latency: ms, Successes: 1, ChecksTotal: 1}},
		{"pass", Status{State: Up, Since: at(1), LastCheck: at(2), LastAnswer: ok, Latency: ms, Successes: 2, ChecksTotal: 2}},
		{"fail", Status{State: Up, Since: at(1), FailingSince: at(3), LastCheck: at(3), LastAnswer: refused, Failures: 1, ChecksTotal: 3, FailedTotal: 1}},
		{"fail", Status{State: Down, Since: at(4), FailingSince: at(3), LastCheck: at(4), LastAnswer: refused, Failures: 2, ChecksTotal: 4, FailedTotal: 2}},
		{"fail", Status{State: Down, Since: at(4), FailingSince: at(3), LastCheck: at(5), LastAnswer: refused, Failures: 3, ChecksTotal: 5, FailedTotal: 3}},
		{"pass", Status{State: Down, Since: at(4), LastCheck: at(6), LastAnswer: ok, Latency: ms, Successes: 1, ChecksTotal: 6, FailedTotal: 3}},
		{"fail", Status{State: Down, Since: at(4), FailingSince: at(7), LastCheck: at(7), LastAnswer: refused, Failures: 1, ChecksTotal: 7, FailedTotal: 4}},
		{"drain", Status{State: Draining, Since: at(8), LastCheck: at(8), LastAnswer: drain, Latency: ms, Successes: 1, ChecksTotal: 8, FailedTotal: 4}},
		{"drain", Status{State: Draining, Since: at(8), LastCheck: at(9), LastAnswer: drain, Latency: ms, Successes: 2, ChecksTotal: 9, FailedTotal: 4}},
		{"pass", Status{State: Up, Since: at(10), LastCheck: at(10), LastAnswer: ok, Latency: ms, Successes: 3, ChecksTotal: 10, FailedTotal: 4}},
	} {
		before := s
		s = s.Next(verdicts[step.word], check, at(i+1))
		if diff := cmp.Diff(step.want, s); diff != "" {
			t.Fatalf("status after %s at second %d, from %+v (-want +got):\n%s", step.word, i+1, before, diff)
		}
	}
}
