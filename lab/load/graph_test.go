package load

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Result {
	return Result{
		Elapsed: 2250,
		Kinds: []KindResult{
			{
				Name: "quick", InFlight: 2, Outcomes: map[Outcome]int{Completed: 200, Refused: 3, ConnectTimeout: 1, Unfinished: 1},
				Latency: Latency{P50: 1.25, P99: 31.5},
				Timeline: Timeline{
					Completed: append(repeat(10, 15), repeat(5, 8)...),
					Broken:    append(repeat(0, 15), 0, 1, 0, 1, 0, 1, 0, 1),
				},
			},
			{Name: "slow", InFlight: 40, Skipped: 7, Latency: Latency{P50: 8012, P99: 12_034}},
		},
	}
}

func repeat(v, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func TestGraphPlain(t *testing.T) {
	var b strings.Builder
	if err := NewGraph(&b, 0).Show(sample()); err != nil {
		t.Fatal(err)
	}
	want := "   2.2s  quick 50/s, 2 in flight, 200 completed, 4 broken (3 refused, 1 connect timeout, 1 unfinished)" +
		"  slow 0/s, 40 in flight, 0 completed, 0 broken (7 skipped)\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGraphTerminal(t *testing.T) {
	var b strings.Builder
	g := NewGraph(&b, 60)
	for range 2 {
		if err := g.Show(sample()); err != nil {
			t.Fatal(err)
		}
	}
	pictures := strings.Split(b.String(), "\x1b[6A")
	if len(pictures) != 2 || pictures[0] != pictures[1] {
		t.Fatalf("the second picture is not drawn over the first of 6 lines: %q", b.String())
	}
	space := strings.Repeat(" ", 45)
	want := []string{
		"\rquick    50/s, 2 in flight, 200 completed, 4 broken (3 refuse\x1b[K",
		"\r         \x1b[32m" + space + "███▄▃\x1b[0m\x1b[K",
		"\r         \x1b[31m" + space + "   ██\x1b[0m\x1b[K",
	}
	got := strings.Split(pictures[0], "\n")[:3]
	want[0] = want[0][:1] + clip(want[0][1:], 59) + "\x1b[K"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSparkline(t *testing.T) {
	for _, tt := range []struct {
		in   []int
		want string
	}{
		{[]int{0, 0}, "  "},
		{[]int{0, 1, 1000}, " ▁█"},
		{[]int{8, 4, 1, 0}, "█▄▁ "},
	} {
		if got := sparkline(tt.in); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.in, got, tt.want)
		}
	}
}
