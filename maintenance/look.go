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

const (
	// maxReason is the length of a reason in bytes: it has to fit a line of
	// the status.
	maxReason = 200
	// maxRead is how much of a file is read.
	maxRead = 4096
)

// sight is what one look at the file found.
type sight struct {
	// unknown: the file system did not say whether the file exists.
	unknown bool
	present bool
	reason  string
	until   time.Time
	by      string
	err     error
	// info is that of the file that was read; nil: none was.
	info fs.FileInfo
	// expired: it is there, and has ceased to count.
	expired bool
}

// look examines the file once. It neither blocks nor reads more than maxRead
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
	text, info, err := read(path)
	if err != nil {
		return sight{present: true, err: fmt.Errorf("reading the reason in maintenance file: %w", err)}
	}
	note, err := parse(text)
	return sight{present: true, reason: note.Reason, until: note.Until, by: note.By, err: err, info: info}
}

// blank tells that a regular file was found without any content.
func (s sight) blank() bool { return s.present && s.info != nil && s.info.Size() == 0 }

// read is the beginning of a regular file, and nothing for what is none. Links
// are followed.
func read(path string) (string, fs.FileInfo, error) {
	// Before it is opened: opening a device may do something, and opening a
	// pipe waits for a writer.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	} else if err != nil {
		return "", nil, err
	}
	// It may have been replaced by a pipe since. O_NONBLOCK has no effect on
	// a regular file.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil // removed since; the next look says so
	} else if err != nil {
		return "", nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxRead))
	return string(text), info, err
}

// cleaned is the first line of text, cut to maxReason bytes, without what could
// disturb a terminal.
func cleaned(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	line = line[:min(len(line), maxReason)]
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
	s.Reason, s.Until, s.By = found.reason, found.until, found.by
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
	s.Reason, s.Until, s.By = found.reason, found.until, found.by
	return s
}

// sameError tells that two looks failed alike, or neither did.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}
