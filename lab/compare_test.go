package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/lab/load"
)

// TestTrialJudge has one event judged by what broke in it.
func TestTrialJudge(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	held := func(lb7 string, seconds float64, o load.Outcome) load.Fault {
		return load.Fault{Kind: "hold", LB7: lb7, At: at(seconds), After: 1000 * (seconds + 10), Outcome: o}
	}
	fresh := func(lb7 string, began float64) load.Fault {
		return load.Fault{Kind: "quick", LB7: lb7, At: at(began + 1), After: 1000, Outcome: load.ConnectTimeout}
	}
	killed := mercy{lost: map[string]bool{"LB7-4": true}, from: start, newFor: 3500 * time.Millisecond}
	sending := killed
	sending.reset = map[string]time.Duration{"hold-sending": 8 * time.Second}
	sent := func(seconds float64, o load.Outcome) load.Fault {
		f := held("LB7-4", seconds, o)
		f.Kind = "hold-sending"
		return f
	}
	tests := []struct {
		name   string
		faults []load.Fault
		mercy  mercy
		trial  Trial
		broken string
		want   []string // failures
		notes  []string
	}{
		{name: "nothing broke", broken: "0"},
		{name: "the users' own host", faults: []load.Fault{held("LB7-1", 1, load.Local)}, broken: "0"},
		{
			name: "a flow that could have been kept", faults: []load.Fault{held("LB7-1", 1, load.Reset)}, broken: "1",
			want: []string{"1 flows broke that could have been kept"},
		},
		{name: "those it carried", faults: []load.Fault{held("LB7-4", 1, load.Reset), held("LB7-4", 6, load.Stalled)}, mercy: killed, broken: "2"},
		{
			name:   "one that it did not carry",
			faults: []load.Fault{held("LB7-4", 1, load.Reset), held("LB7-2", 2, load.Reset)}, mercy: killed, broken: "2 (1 carried)",
			want: []string{"1 flows broke that could have been kept"},
		},
		{
			name:   "new ones until it is seen",
			faults: []load.Fault{fresh("", 0.1), fresh("LB7-4", 0.2), fresh("", 3.4)}, mercy: killed, broken: "0 + 3 new",
			notes: []string{"new requests failed for 3.4 s"},
		},
		{
			name:   "a new one after that",
			faults: []load.Fault{fresh("", 3.6)}, mercy: killed, broken: "0 + 1 new",
			want:  []string{"1 flows broke that could have been kept"},
			notes: []string{"new requests failed for 3.6 s"},
		},
		{
			name: "a new one where nothing may break", faults: []load.Fault{fresh("", 1)}, broken: "0 + 1 new",
			want: []string{"1 flows broke that could have been kept"},
		},
		{
			name:   "a reset for who sends, silence for who does not",
			faults: []load.Fault{sent(7.5, load.Reset), held("LB7-4", 11, load.Stalled)}, mercy: sending, broken: "2",
			notes: []string{"of 1 users who sent, 1 had a reset in time, the last after 7.5 s"},
		},
		{
			name:   "a late reset and none",
			faults: []load.Fault{sent(7, load.Reset), sent(8.5, load.Reset), sent(11, load.Stalled)}, mercy: sending, broken: "3",
			want:  []string{"of 3 users who sent, 1 had their reset late and 1 none"},
			notes: []string{"of 3 users who sent, 1 had a reset in time, the last after 8.5 s"},
		},
		{
			name: "nobody who sends was there", mercy: sending, broken: "0",
			want:  []string{"no user who sent was cut off: nothing was measured"},
			notes: []string{"of 0 users who sent, 0 had a reset in time, the last after 0 ms"},
		},
		{
			name: "never seen", trial: Trial{Name: "never"}, broken: "0",
			want: []string{"what was waited for did not come"},
		},
		{
			name: "never back", trial: Trial{React: ms(5)}, broken: "0",
			want: []string{"what was waited for did not come"},
		},
		{name: "one way", trial: Trial{React: ms(5), OneWay: true}, broken: "0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			trial := tt.trial
			if cmp.Equal(trial, Trial{}) {
				trial.Instant = true
			}
			trial.judge(tt.faults, tt.mercy)
			if diff := cmp.Diff(tt.want, trial.Failures); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.notes, trial.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			if got := trial.broken(); got != tt.broken {
				t.Errorf("broken %q, want %q", got, tt.broken)
			}
		})
	}
}

// TestComparison compares the table.
func TestComparison(t *testing.T) {
	c := Comparison{
		Ours: Trials{Balancer: LB4D, Flows: 200, Seed: 7, Events: []Trial{
			{Name: "LB4 disabled", Allowed: "0", React: ms(95), Back: ms(151)},
			{Name: "LB7 added", Allowed: "0", React: ms(377), OneWay: true},
			{Name: "LB7 cut off", Allowed: "carried", Broken: 60, Lost: 59, New: 2, React: ms(3900), Notes: []string{"it carried 59"},
				Failures: []string{"1 flows broke that could have been kept"},
				Examples: []load.Fault{{
					Kind: "hold", Outcome: load.Reset, LB7: "LB7-2", After: 1234.5, Error: "reset by peer",
					Source: userAddr(7), Target: netip.MustParseAddrPort("198.51.100.1:80"),
				}}},
			{Name: "ICMP", Allowed: "all", Found: "200 of 200 found", Instant: true},
		}},
		Theirs: Trials{Balancer: Keepalived, Events: []Trial{
			{Name: "LB4 disabled", React: ms(1200), Back: ms(4300)},
			{Name: "LB7 added", Broken: 12, React: ms(2000), OneWay: true, Failures: []string{"of no interest"}},
		}},
	}
	var b strings.Builder
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `              BROKEN FLOWS                               TIME TO REACT, AND BACK                 
EVENT         LB4D                   KEEPALIVED  ALLOWED  LB4D                     KEEPALIVED     VERDICT
LB4 disabled  0                      0           0        95 ms, 151 ms            1.2 s, 4.3 s   kept
LB7 added     0                      12          0        377 ms                   2 s            kept
LB7 cut off   60 (59 carried) + 2 new  -           carried  3.9 s, never             -              NOT KEPT
ICMP          200 of 200 found       -           all      -                        -              kept
`
	// Columns are as wide as they are; what is in them is of interest.
	blanks := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	table, rest, _ := strings.Cut(b.String(), "\n\n")
	if diff := cmp.Diff(strings.TrimSpace(blanks(want)), strings.TrimSpace(blanks(table))); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	for _, want := range []string{
		"200 downloads were in flight", "Seed 7.",
		"lb4d: LB7 cut off: it carried 59\n",
		"not kept: LB7 cut off: 1 flows broke that could have been kept\n",
		"broken: a hold request from 203.0.113.7 to 198.51.100.1:80, answered by LB7-2, 1234 ms after its start, reset: reset by peer\n",
	} {
		if !strings.Contains(rest, want) {
			t.Errorf("%q is not in\n%s", want, rest)
		}
	}
	if strings.Contains(rest, "of no interest") {
		t.Error("the table tells of promises that keepalived did not make")
	}
	if c.Kept() {
		t.Error("the comparison says that all was kept")
	}
	c.Ours.Events = c.Ours.Events[:2]
	if !c.Kept() {
		t.Error("the comparison says that not all was kept")
	}
	if (&Comparison{}).Kept() {
		t.Error("nothing was tried, and the comparison says that all was kept")
	}
}
