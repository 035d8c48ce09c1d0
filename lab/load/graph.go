package load

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// columnSteps is how many timeline steps one column shows: half a second.
	columnSteps = 5
	// labelWidth is for the kind's name before its graph.
	labelWidth = 8
	maxColumns = 120
)

// bars are the eighths of a cell, from nothing to all.
var bars = []rune(" ▁▂▃▄▅▆▇█")

// Graph draws results as they come: on a terminal as lines that it draws over,
// elsewhere as one line each. It may be on another machine than the
// [Generator], since a Result travels as JSON.
type Graph struct {
	w     io.Writer
	width int
	drawn int // lines that the next picture overwrites
}

// NewGraph draws on w, which is a terminal of that width; 0 makes plain lines.
func NewGraph(w io.Writer, width int) *Graph { return &Graph{w: w, width: width} }

// Window is how much of the timeline one picture needs: what to ask of
// [Generator.Snapshot].
func (g *Graph) Window() time.Duration {
	return time.Duration((g.columns()+1)*columnSteps) * Step
}

func (g *Graph) columns() int {
	return min(max(g.width-labelWidth-2, 2), maxColumns)
}

// Show draws a result.
func (g *Graph) Show(r Result) error {
	if g.width == 0 {
		_, err := fmt.Fprintln(g.w, plain(r))
		return err
	}
	var lines []string
	for _, k := range r.Kinds {
		lines = append(lines, g.draw(k)...)
	}
	var b strings.Builder
	if g.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", g.drawn) // up
	}
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\n") // and clear what is behind
	}
	g.drawn = len(lines)
	_, err := io.WriteString(g.w, b.String())
	return err
}

// draw makes a kind's lines: figures, what was completed, what broke.
func (g *Graph) draw(k KindResult) []string {
	completed, broken := columns(k.Timeline, g.columns())
	figures := fmt.Sprintf("%s  p50 %s  p99 %s", summary(k), short(k.Latency.P50), short(k.Latency.P99))
	lines := []string{
		clip(fmt.Sprintf("%-*s %s", labelWidth, clip(k.Name, labelWidth), figures), g.width-1),
		fmt.Sprintf("%*s\x1b[32m%s\x1b[0m", labelWidth+1, "", sparkline(completed)),
	}
	// Its line is there from the start, else the picture would jump at the first fault.
	return append(lines, fmt.Sprintf("%*s\x1b[31m%s\x1b[0m", labelWidth+1, "", sparkline(broken)))
}

// plain is a result in one line.
func plain(r Result) string {
	parts := []string{fmt.Sprintf("%6.1fs", r.Elapsed/1000)}
	for _, k := range r.Kinds {
		parts = append(parts, k.Name+" "+summary(k))
	}
	return strings.Join(parts, "  ")
}

// summary is a kind's figures: the rate of the last full column, and the
// totals that are not zero.
func summary(k KindResult) string {
	completed, _ := columns(k.Timeline, 2)
	rate := float64(completed[0]) / (columnSteps * Step.Seconds())
	s := fmt.Sprintf("%.0f/s, %d in flight, %d completed, %d broken", rate, k.InFlight, k.Outcomes[Completed], k.Broken())
	var why []string
	for o := range outcomes {
		if n := k.Outcomes[o]; n > 0 && o != Completed {
			why = append(why, fmt.Sprintf("%d %s", n, strings.ReplaceAll(o.String(), "_", " ")))
		}
	}
	if k.Skipped > 0 {
		why = append(why, fmt.Sprintf("%d skipped", k.Skipped))
	}
	if len(why) > 0 {
		s += " (" + strings.Join(why, ", ") + ")"
	}
	return s
}

// columns adds a timeline up to n columns, of which the last may still fill.
// Columns are aligned to the start of the run, so that they do not change as they
// move.
func columns(t Timeline, n int) (completed, broken []int) {
	completed, broken = make([]int, n), make([]int, n)
	last := (t.First + len(t.Completed) - 1) / columnSteps
	for i := range t.Completed {
		if c := (t.First+i)/columnSteps - last + n - 1; c >= 0 {
			completed[c] += t.Completed[i]
			broken[c] += t.Broken[i]
		}
	}
	return completed, broken
}

// sparkline draws values in proportion to the largest. What is not zero
// always shows.
func sparkline(values []int) string {
	top := max(1, slices.Max(values))
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(bars[(v*(len(bars)-1)+top-1)/top])
	}
	return b.String()
}

// short writes milliseconds in few characters.
func short(ms float64) string {
	switch {
	case ms >= 10_000:
		return fmt.Sprintf("%.0f s", ms/1000)
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}
