package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/lab/load"
)

func ms(n int) *time.Duration {
	d := time.Duration(n) * time.Millisecond
	return &d
}

func TestMiddle(t *testing.T) {
	tests := []struct {
		name string
		in   []*time.Duration
		want *time.Duration
	}{
		{"none", nil, nil},
		{"one", []*time.Duration{ms(3)}, ms(3)},
		{"three", []*time.Duration{ms(9), ms(1), ms(3)}, ms(3)},
		{"one never", []*time.Duration{nil, ms(1), ms(3)}, ms(3)},
		{"two never", []*time.Duration{nil, ms(1), nil}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, middle(tt.in)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettled(t *testing.T) {
	tests := []struct {
		name     string
		attempts []Attempt
		want     bool
	}{
		{"kept at once", []Attempt{{React: ms(900), Back: ms(1900)}}, true},
		{"late", []Attempt{{React: ms(1100), Back: ms(1900)}}, false},
		{"back late", []Attempt{{React: ms(900), Back: ms(2100)}}, false},
		{"never", []Attempt{{Back: ms(1)}}, false},
		{"second kept", []Attempt{{React: ms(1100), Back: ms(1)}, {React: ms(1), Back: ms(1)}}, false},
		{"third", []Attempt{{React: ms(1100), Back: ms(1)}, {React: ms(1100), Back: ms(1)}, {React: ms(1100), Back: ms(1)}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Event{ReactLimit: time.Second, BackLimit: 2 * time.Second, Attempts: tt.attempts}
			if got := e.settled(); got != tt.want {
				t.Errorf("settled: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestReport judges events of all sorts and compares the table.
func TestReport(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	event := func(name string, from, to float64, attempts ...Attempt) Event {
		return Event{Name: name, From: at(from), To: at(to), ReactLimit: time.Second, BackLimit: 2 * time.Second, Attempts: attempts}
	}
	lost := event("host lost", 20, 30, Attempt{React: ms(800), Back: ms(900)})
	lost.Excuse = "its flows"
	lost.excused = func(_ *Event, f load.Fault) bool { return f.LB7 == "LB7-1" }
	r := Report{
		Events: []Event{
			{Name: "requests", From: at(0), To: at(5), instant: true},
			event("kept", 5, 10, Attempt{React: ms(38), Back: ms(1500)}),
			event("one of three late", 10, 15,
				Attempt{React: ms(4000), Back: ms(100)}, Attempt{React: ms(500), Back: ms(200)}, Attempt{React: ms(600), Back: ms(300)}),
			event("never back", 15, 20, Attempt{React: ms(1200)}, Attempt{React: ms(1300)}, Attempt{React: ms(1), Back: ms(1)}),
			lost,
		},
		Load: load.Result{
			Kinds: []load.KindResult{{Name: "quick", Outcomes: map[load.Outcome]int{load.Completed: 100, load.Reset: 4, load.Local: 1}}},
			Faults: []load.Fault{
				{At: at(6), Outcome: load.Local}, // says nothing of the service
				{At: at(21), Outcome: load.Reset, LB7: "LB7-1"},
				{
					At: at(22), Kind: "slow", Outcome: load.Stalled, LB7: "LB7-2", Error: "no byte for 3s",
					Source: userAddr(7), Target: netip.MustParseAddrPort("198.51.100.1:80"),
				},
				{At: at(31), Outcome: load.Refused},
			},
		},
	}
	r.judge()
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	want := `EVENT              TIME TO REACT  TIME BACK  REQUESTS BROKEN  ALLOWED                   VERDICT
requests           -              -          0                0 broken                  kept
kept               38 ms          1.5 s      0                1 s, back 2 s, 0 broken   kept
one of three late  600 ms         200 ms     0                1 s, back 2 s, 0 broken   kept
never back         1.2 s          never      0                1 s, back 2 s, 0 broken   NOT KEPT
host lost          800 ms         900 ms     2                1 s, back 2 s, its flows  NOT KEPT
(in between)                                 1                0 broken                  NOT KEPT

100 requests completed, 4 broken, 0 in flight at the end.
1 more were never sent: the users' own host was at its limits.
one of three late: times are the median of 3 attempts.
never back: times are the median of 3 attempts.
not kept: never back: time to react: it took 1.2 s, allowed are 1 s
not kept: never back: time back: it did not come to that
not kept: host lost: 1 requests broke that could have been kept
  broken: 2 s after the event's start: a slow request from 203.0.113.7 to 198.51.100.1:80, answered by LB7-2, stalled: no byte for 3s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if r.Kept {
		t.Error("the report says that all was kept")
	}
}

// TestReportNothingServed does not take silence for success.
func TestReportNothingServed(t *testing.T) {
	r := Report{Events: []Event{{Name: "requests", instant: true}}}
	r.judge()
	if r.Kept {
		t.Error("no request was completed, and the report says that all was kept")
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		38 * time.Millisecond:                "38 ms",
		999*time.Millisecond + 999:           "999 ms",
		time.Second:                          "1 s",
		1540 * time.Millisecond:              "1.5 s",
		20*time.Second + 10*time.Millisecond: "20 s",
	} {
		if got := words(d); got != want {
			t.Errorf("words(%v) = %q, want %q", d, got, want)
		}
	}
}
