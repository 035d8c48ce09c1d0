package agent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxReason is the length of a reason in bytes: it has to fit a line of the
	// status, here and in HAProxy's.
	maxReason = 200
	// maxWeight is what HAProxy takes for the largest percentage: its smallest
	// weight times that is its largest weight.
	maxWeight = 25600
	// maxMaxconn is the largest number that HAProxy's maxconn holds.
	maxMaxconn = 1<<31 - 1
)

// Answer is what HAProxy is told, a word of each class or none.
type Answer struct {
	Operational string // up, down, stopped or fail
	Admin       string // ready, drain or maint
	Weight      string // 75%
	MaxConn     string // maxconn:100
	// Reason is what follows the sharp: one line of printable characters.
	Reason string
}

// String is "down ready 75% maxconn:100 # new disk": the line that HAProxy is
// answered, without its newline.
func (a Answer) String() string {
	var words []string
	for _, w := range []string{a.Operational, a.Admin, a.Weight, a.MaxConn} {
		if w != "" {
			words = append(words, w)
		}
	}
	if a.Reason != "" {
		words = append(words, "# "+a.Reason)
	}
	return strings.Join(words, " ")
}

// Serving tells whether HAProxy sends new sessions to a server with that answer.
func (a Answer) Serving() bool {
	return (a.Operational == "" || a.Operational == "up") && (a.Admin == "" || a.Admin == "ready")
}

// over fills in, from a fallback, the classes that a leaves out.
func (a Answer) over(fallback Answer) Answer {
	for _, f := range []struct{ to, from *string }{
		{&a.Operational, &fallback.Operational},
		{&a.Admin, &fallback.Admin},
		{&a.Weight, &fallback.Weight},
		{&a.MaxConn, &fallback.MaxConn},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	return a
}

// Parse reads the content of an agent check file. The package's documentation
// says what that is. The error says what is wrong and what would be right.
func Parse(content []byte) (Answer, error) {
	text := strings.TrimPrefix(string(content), "\ufeff")
	var a Answer
	found := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if found != "" {
			return Answer{}, fmt.Errorf("it has two lines with words, %s and %s, and HAProxy reads one: leave one", quote(found), quote(line))
		}
		found = line
		words, reason, _ := strings.Cut(line, "#")
		a.Reason = tidy(reason)
		for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			if err := a.take(word); err != nil {
				return Answer{}, err
			}
		}
	}
	if a == (Answer{Reason: a.Reason}) {
		return Answer{}, errors.New("it is empty: write a word such as up, drain or down, or remove it")
	}
	return a, nil
}

// take adds one word.
func (a *Answer) take(word string) error {
	lower := strings.ToLower(word)
	class := &a.Operational
	switch number, isMaxconn := strings.CutPrefix(lower, "maxconn:"); {
	case lower == "up" || lower == "down" || lower == "stopped" || lower == "fail":
	case lower == "ready" || lower == "drain" || lower == "maint":
		class = &a.Admin
	case isMaxconn:
		n, ok := digits(number, maxMaxconn)
		if !ok {
			return fmt.Errorf("%s: maxconn needs a number from 0 to %d", quote(word), maxMaxconn)
		}
		lower, class = "maxconn:"+strconv.Itoa(n), &a.MaxConn
	case strings.HasSuffix(lower, "%"):
		n, ok := digits(strings.TrimSuffix(lower, "%"), maxWeight)
		if !ok {
			return fmt.Errorf("%s: a weight is a number from 0 to %d and a %% sign", quote(word), maxWeight)
		}
		lower, class = strconv.Itoa(n)+"%", &a.Weight
	default:
		return fmt.Errorf("%s is none of HAProxy's words: up, down, stopped, fail, ready, drain, maint, N%%, maxconn:N", quote(word))
	}
	if *class != "" && *class != lower {
		return fmt.Errorf("it says both %s and %s: leave one", *class, lower)
	}
	*class = lower
	return nil
}

// digits is a number without sign that is at most limit.
func digits(s string, limit int) (int, bool) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n <= limit
}

// tidy makes a reason one line of printable characters, of at most maxReason
// bytes.
func tidy(reason string) string {
	reason = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, reason)
	reason = strings.Join(strings.Fields(reason), " ")
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = strings.TrimSpace(reason[:cut])
	}
	return reason
}

// quote shows a piece of the file in an error, short and in one line.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
