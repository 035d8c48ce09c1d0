package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal is what the output goes to. The zero value is none: a file or a
// pipe, where lines have any length and no colour.
type terminal struct {
	is            bool
	width, height int // 0: not known
	colour        bool
}

// minWidth is what we reckon with at least; a terminal that is narrower breaks
// the lines itself.
const minWidth = 20

// terminalOf looks at w now. NO_COLOR, set to anything, turns colours off
// (no-color.org).
func terminalOf(w io.Writer) terminal {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return terminal{}
	}
	t := terminal{is: true}
	t.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if width, height, err := term.GetSize(int(f.Fd())); err == nil {
		t.width, t.height = max(width, minWidth), height
	}
	return t
}

// over is page with what it takes to draw it over the one before, without
// flicker. What the terminal has no lines for is left out, or it would scroll.
func (t terminal) over(page string, first bool) string {
	lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
	if t.height > 2 && len(lines) > t.height-1 {
		left := len(lines) - (t.height - 2)
		lines = append(lines[:t.height-2], "… and "+strconv.Itoa(left)+" more lines")
	}
	begin := "\x1b[H" // home
	if first {
		begin += "\x1b[2J" // clear all
	}
	const toEndOfLine, toEndOfScreen = "\x1b[K", "\x1b[J"
	return begin + strings.Join(lines, toEndOfLine+"\n") + toEndOfLine + "\n" + toEndOfScreen
}

// sgr is a colour, as the parameter of SGR (ECMA-48 8.3.117).
type sgr string

const (
	plain  sgr = ""
	bold   sgr = "1"
	red    sgr = "31"
	green  sgr = "32"
	yellow sgr = "33"
)

// paint is s in a colour where the terminal has colours.
func (t terminal) paint(s string, c sgr) string {
	if !t.colour || c == plain || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// printable is s with everything escaped that a terminal might obey rather
// than show: control characters, and those that turn the direction of text.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// cut is s in at most width columns; 0: as it is.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// wrap breaks s at spaces into lines of at most width columns; 0: one line.
// The lines after the first begin with indent. A word that is longer than a
// line is broken too.
func wrap(s string, width int, indent string) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	var lines []string
	line := ""
	for i, word := range strings.Split(s, " ") {
		if i > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		if i > 0 {
			lines = append(lines, line)
			word = indent + word
		}
		for utf8.RuneCountInString(word) > width {
			head := []rune(word)[:width]
			lines = append(lines, string(head))
			word = indent + word[len(string(head)):]
		}
		line = word
	}
	return strings.Join(append(lines, line), "\n")
}
