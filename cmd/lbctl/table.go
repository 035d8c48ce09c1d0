package main

import (
	"strings"
	"unicode/utf8"
)

// cell is one cell of a table.
type cell struct {
	text   string
	colour sgr
	right  bool // aligned to the right, as numbers are
}

func text(s string) cell            { return cell{text: s} }
func coloured(s string, c sgr) cell { return cell{text: s, colour: c} }
func number(s string) cell          { return cell{text: s, right: true} }
func (c cell) columns() int         { return utf8.RuneCountInString(c.text) }
func (c cell) pad(width int) (l, r string) {
	space := strings.Repeat(" ", max(0, width-c.columns()))
	if c.right {
		return space, ""
	}
	return "", space
}

// table is aligned columns under a header. The last column has the sentences:
// where a row is too wide for the terminal, its sentence gets a line of its
// own below the row, so that it is read in full before anything is cut off.
type table struct {
	header []string
	rows   [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// gap is between two columns, sentenceIndent before a sentence on its own
// line.
const (
	gap            = "  "
	sentenceIndent = "    "
)

// write draws the table.
func (t *table) write(b *strings.Builder, term terminal) {
	for _, row := range t.rows {
		for i := range row {
			row[i].text = printable(row[i].text)
		}
	}
	widths := make([]int, len(t.header))
	head := make([]cell, len(t.header))
	for i, h := range t.header {
		head[i] = cell{text: h, colour: bold}
		widths[i] = head[i].columns()
		for _, row := range t.rows {
			widths[i] = max(widths[i], row[i].columns())
			head[i].right = row[i].right
		}
	}
	for _, row := range append([][]cell{head}, t.rows...) {
		t.line(b, row, widths, term)
	}
}

func (t *table) line(b *strings.Builder, row []cell, widths []int, term terminal) {
	last := len(row) - 1
	before := 0
	for _, w := range widths[:last] {
		before += w + len(gap)
	}
	alone := term.width > 0 && row[last].text != "" && before+row[last].columns() > term.width
	cells := row
	if alone || row[last].text == "" {
		cells = row[:last]
	}

	left := term.width // columns left on this line; 0 where there is no bound
	for i, c := range cells {
		l, r := c.pad(widths[i])
		if term.width > 0 {
			if len(l)+c.columns() > left {
				l, c.text = "", cut(c.text, left)
			}
			left -= len(l) + c.columns()
		}
		b.WriteString(l + term.paint(c.text, c.colour))
		if i == len(cells)-1 || term.width > 0 && left <= len(r)+len(gap) {
			break // nothing follows, or there is no room for it
		}
		b.WriteString(r + gap)
		left -= len(r) + len(gap)
	}
	b.WriteByte('\n')
	if alone && row[last].colour != bold { // a header is not worth a line
		b.WriteString(wrap(sentenceIndent+row[last].text, term.width, sentenceIndent) + "\n")
	}
}
