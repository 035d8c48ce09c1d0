package maintenance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// maxReason is the length of a reason in bytes: it has to fit a line of the
// status.
const maxReason = 200

// sight is what one look at the file found.
type sight struct {
	// unknown: the file system did not say whether the file exists.
	unknown bool
	present bool
	reason  string
	err     error
}

// look examines the file once. It neither blocks nor reads more than maxReason
// bytes, whatever is at path.
func look(path string) sight {
	_, err := os.Lstat(path)
	switch {
	// A path that leads through a file cannot exist either.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return sight{}
	case err != nil:
		return sight{unknown: true, err: fmt.Errorf("examining maintenance file: %w", err)}
	}
	reason, err := readReason(path)
	if err != nil {
		return sight{present: true, err: fmt.Errorf("reading the reason in maintenance file: %w", err)}
	}
	return sight{present: true, reason: reason}
}

// readReason is the first line of a regular file, and nothing for what is none.
// Links are followed.
func readReason(path string) (string, error) {
	// Before it is opened: opening a device may do something, and opening a
	// pipe waits for a writer.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	// It may have been replaced by a pipe since. O_NONBLOCK has no effect on
	// a regular file.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // removed since; the next look says so
	} else if err != nil {
		return "", err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxReason))
	if err != nil {
		return "", err
	}
	return cleaned(string(text)), nil
}

// cleaned is the first line of text without what could disturb a terminal.
func cleaned(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	// The cut at maxReason may have gone through a character.
	line = strings.ToValidUTF8(line, "")
	line = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, line)
	return strings.TrimSpace(line)
}

// first is the state after the first look; see State.Present for its rule.
func (s State) first(found sight, now time.Time) State {
	s.Present = found.present || found.unknown
	s.Since = now
	s.Reason = found.reason
	s.Err = found.err
	return s
}

// next is the state after a later look.
func (s State) next(found sight, now time.Time) State {
	s.Err = found.err
	if found.unknown {
		return s
	}
	if s.Present != found.present {
		s.Present, s.Since = found.present, now
	}
	s.Reason = found.reason
	return s
}

// sameError tells that two looks failed alike, or neither did.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}
