package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxLine bounds a fault's line, in bytes, so that a file of garbage
	// does not become a log of garbage.
	maxLine = 300
	// maxQuoted bounds what a fault shows of a value, in bytes.
	maxQuoted = 64
	// maxKey bounds what a fault shows of a key, in bytes.
	maxKey = 120
	// maxFaults bounds how many faults of one file are told one by one.
	maxFaults = 200
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	// File is the configuration file.
	File string
	// Line counts from 1; 0: the fault is about the file as a whole.
	Line int
	// Key is the path of the key, such as pool.lb7.check.interval; empty
	// where the fault lies in no key.
	Key string
	// Message is what is wrong, a semicolon, and what would be right.
	Message string
}

// String is the fault on one line of at most 300 bytes, without control
// characters: FILE:LINE: KEY: what is wrong; what would be right.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(tail(f.File, maxKey))
	if f.Line > 0 {
		b.WriteString(":" + strconv.Itoa(f.Line))
	}
	b.WriteString(": ")
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	return head(printable(b.String()), maxLine)
}

// Faults is every fault of a file, in the order of the lines. It is the error
// that Load and Parse return.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// place is where a key stands: what a fault of it is told with.
type place struct {
	line int
	key  string
}

// in is the place of a key in the table at p, in the given line.
func (p place) in(key string, line int) place {
	if !bare(key) {
		key = quote(key)
	}
	if p.key != "" {
		key = p.key + "." + key
	}
	return place{line: line, key: head(key, maxKey)}
}

// element is the place of a list's element.
func (p place) element(i, line int) place {
	return place{line: line, key: head(p.key+"["+strconv.Itoa(i)+"]", maxKey)}
}

// child is a key of the table at p that is not in the file, so it has the
// table's line.
func (p place) child(key string) place { return p.in(key, p.line) }

// checker collects the faults of one file.
type checker struct {
	file   string
	faults Faults
}

// fault notes what is wrong with that which stands at p, and after a
// semicolon what would be right.
func (c *checker) fault(p place, format string, args ...any) {
	c.faults = append(c.faults, Fault{File: c.file, Line: p.line, Key: p.key, Message: fmt.Sprintf(format, args...)})
}

// err is the faults in the order of their lines, or nil where there are none.
func (c *checker) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	faults := c.faults
	if more := len(faults) - maxFaults; more > 0 {
		rest := Fault{
			File:    c.file,
			Line:    faults[maxFaults].Line,
			Message: fmt.Sprintf("%d more faults from here on are not shown; mend those above first", more),
		}
		faults = append(slices.Clip(faults[:maxFaults]), rest)
	}
	return faults
}

// bare tells that TOML lets the key stand without quotes.
func bare(key string) bool {
	return key != "" && strings.Trim(key, letters+digits+"_-") == ""
}

const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

// quote shows a value of the file: in quotes, cut to maxQuoted, every
// character that does not print escaped.
func quote(s string) string { return strconv.Quote(head(s, maxQuoted)) }

// quotePath is quote for the path of a file, whose end says the most.
func quotePath(s string) string { return strconv.Quote(tail(s, maxKey)) }

// head is the beginning of s, at most n bytes of it with the mark that
// something was cut off.
func head(s string, n int) string {
	const mark = "..."
	if len(s) <= n {
		return s
	}
	cut := n - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}

// tail is the end of s, which of a long file name says more than its
// beginning.
func tail(s string, n int) string {
	const mark = "..."
	if len(s) <= n {
		return s
	}
	cut := len(s) - n + len(mark)
	for cut < len(s) && !utf8.RuneStart(s[cut]) {
		cut++
	}
	return mark + s[cut:]
}

// printable escapes what would break a line or move a terminal's cursor. It
// is the last guard; values come here in quotes already.
func printable(s string) string {
	ok := func(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if ok(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// closest is the one of the known words that s was probably meant to be, or
// empty: a third of its letters, and at least one, may be wrong.
func closest(s string, known []string) string {
	if len(s) > maxQuoted {
		return ""
	}
	best, fewest := "", max(1, len(s)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(s), strings.ToLower(k)); d < fewest {
			best, fewest = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or changed to make a
// into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// list writes words as a sentence does: a, b and c. Of more than a dozen it
// shows the first, and how many there are besides.
func list(words []string, and string) string {
	const dozen = 12
	switch n := len(words); {
	case n == 0:
		return "none"
	case n == 1:
		return words[0]
	case n > dozen:
		return fmt.Sprintf("%s and %d more", strings.Join(words[:dozen], ", "), n-dozen)
	default:
		return strings.Join(words[:n-1], ", ") + " " + and + " " + words[n-1]
	}
}
