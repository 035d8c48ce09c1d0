package discovery

import (
	"context"
	"errors"
	"strings"
)

// maxMessage is the length of an error or a reason as it is kept: some lines of
// a terminal.
const maxMessage = 400

// printable is text as one line of printable ASCII. Errors carry what servers
// and files said, and end in logs, on terminals and in a browser.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case r < ' ', r > '~': // utf8.RuneError among them
			return '?'
		}
		return r
	}, text)
}

// shorten cuts text to maxMessage bytes of printable ASCII.
func shorten(text string) string {
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return printable(text)
}

// tidied is err with a text that can be shown. The causes stay within reach of
// errors.Is.
func tidied(err error) error {
	text := err.Error()
	if short := shorten(text); short != text {
		return tidyError{short, err}
	}
	return err
}

type tidyError struct {
	text  string
	cause error
}

func (e tidyError) Error() string { return e.text }
func (e tidyError) Unwrap() error { return e.cause }

// timedOut tells whether err is a deadline's.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
