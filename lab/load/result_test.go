package load

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLongestGap(t *testing.T) {
	start := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(steps int) time.Time { return start.Add(time.Duration(steps) * Step) }
	r := Result{Started: start, Kinds: []KindResult{{
		Name:     "k",
		Timeline: Timeline{First: 10, Completed: []int{1, 0, 0, 2, 0, 0, 0, 1, 1, 0}, Broken: []int{0, 3, 0, 0, 0, 0, 5, 0, 0, 0}},
	}}}
	for _, tt := range []struct {
		name      string
		from, to  int
		gap       int
		began     int
		broken    int
		wantBegan bool
	}{
		{"all", 10, 20, 3, 14, 8, true},
		{"before the first gap's end", 10, 13, 2, 11, 3, true},
		{"to the end", 18, 25, 6, 19, 0, true},
		{"no gap", 17, 19, 0, 0, 0, false},
		{"nothing completed at all", 30, 40, 10, 30, 0, true},
	} {
		gap, began := r.LongestGap("k", at(tt.from), at(tt.to))
		if gap != time.Duration(tt.gap)*Step || tt.wantBegan && !began.Equal(at(tt.began)) {
			t.Errorf("%s: got %v from step %v, want %v from %d", tt.name, gap, began.Sub(start)/Step, time.Duration(tt.gap)*Step, tt.began)
		}
		if n := r.BrokenBetween(at(tt.from), at(tt.to)); n != tt.broken {
			t.Errorf("%s: %d broken, want %d", tt.name, n, tt.broken)
		}
	}
	if gap, _ := r.LongestGap("another", at(0), at(10)); gap != 10*Step {
		t.Errorf("a kind that is not there: got %v", gap)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if got := h.percentiles(); got != (Latency{}) {
		t.Errorf("of nothing: got %+v", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	got := h.percentiles()
	near := func(what string, got, want float64) {
		if got < want*0.98 || got > want*1.03 {
			t.Errorf("%s: got %v ms, want %v", what, got, want)
		}
	}
	near("p50", got.P50, 500)
	near("p90", got.P90, 900)
	near("p99", got.P99, 990)
	near("max", got.Max, 1000)
	h = histogram{}
	h.add(0)
	h.add(100 * time.Hour)
	if got := h.percentiles(); got.Max != millis(100*time.Hour) || got.P50 > 1 {
		t.Errorf("of extremes: got %+v", got)
	}
}

// TestTimelineIsBounded forgets the beginning of a long run, not its end.
func TestTimelineIsBounded(t *testing.T) {
	tl := &tally{name: "k"}
	for i := range maxBuckets + 10 {
		tl.count(Completed, &flight{}, time.Millisecond, time.Duration(i)*Step)
	}
	got := tl.result(maxBuckets+9, 0).Timeline
	if len(got.Completed) > maxBuckets || got.First+len(got.Completed) != maxBuckets+10 {
		t.Errorf("%d buckets from %d", len(got.Completed), got.First)
	}
	for i, n := range got.Completed {
		if n != 1 {
			t.Fatalf("bucket %d has %d", got.First+i, n)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	g := &Generator{}
	for i := range 3*maxFaults + 1 {
		g.fault(Fault{Bytes: int64(i)})
	}
	if n := len(g.faults); n > maxFaults || g.faults[n-1].Bytes != 3*maxFaults {
		t.Errorf("%d faults, the last is %d", n, g.faults[n-1].Bytes)
	}
}

func TestParseSources(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
		n    int
	}{
		{in: "", n: 0},
		{in: "192.0.2.1, 2001:db8::1", want: []string{"192.0.2.1", "2001:db8::1"}},
		{in: "192.0.2.0/30", want: []string{"192.0.2.1", "192.0.2.2"}},
		{in: "192.0.2.9/31", want: []string{"192.0.2.8", "192.0.2.9"}},
		{in: "192.0.2.9/32", want: []string{"192.0.2.9"}},
		{in: "2001:db8::/126", want: []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"}},
		{in: "255.255.255.252/30", want: []string{"255.255.255.253", "255.255.255.254"}},
		{in: "10.0.0.0/8", n: maxSources},
		{in: "10.0.0.0/8 10.0.0.0/24 2001:db8::/64", n: maxSources},
	} {
		got, err := ParseSources(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if tt.want == nil {
			if len(got) != tt.n {
				t.Errorf("%q: got %d addresses, want %d", tt.in, len(got), tt.n)
			}
			continue
		}
		var s []string
		for _, a := range got {
			s = append(s, a.String())
		}
		if diff := cmp.Diff(tt.want, s); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.in, diff)
		}
	}
	if _, err := ParseSources("nonsense"); err == nil {
		t.Error("nonsense is taken")
	}
}
