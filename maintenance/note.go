package maintenance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Note is what a maintenance file says. Written out it is text that people can
// read and write:
//
//	new disk
//	until: 2026-11-21T10:00:00Z
//	by: zoe
//
// The first line is the reason; the others may be missing, and what is none of
// them is passed over.
type Note struct {
	// Reason is one line.
	Reason string
	// Until is when the file ceases to count; zero: never.
	Until time.Time
	// By is who wrote it, as far as they said.
	By string
}

const (
	untilKey = "until:"
	byKey    = "by:"
)

// String is the text of the file.
func (n Note) String() string {
	text := cleaned(n.Reason) + "\n"
	if !n.Until.IsZero() {
		text += untilKey + " " + n.Until.UTC().Format(time.RFC3339) + "\n"
	}
	if by := cleaned(n.By); by != "" {
		text += byKey + " " + by + "\n"
	}
	return text
}

// parse reads what a file says. Whatever it is, the file stands: a time that is
// none is told as an error and never ends the maintenance.
func parse(text string) (n Note, err error) {
	for i, line := range strings.Split(text, "\n") {
		line = cleaned(line)
		key, value := "", ""
		if at := strings.IndexByte(line, ':'); at >= 0 {
			key, value = strings.ToLower(line[:at+1]), strings.TrimSpace(line[at+1:])
		}
		switch {
		case key == untilKey && n.Until.IsZero():
			until, bad := time.Parse(time.RFC3339, strings.ToUpper(value))
			switch {
			case bad == nil:
				n.Until = until
			case i == 0:
				n.Reason = line // "until: somebody calls" is a reason like any other
			default:
				err = fmt.Errorf("%s %.40q is no time such as 2026-11-21T10:00:00Z, so the file stands until it is removed", untilKey, value)
			}
		case i == 0:
			n.Reason = line
		case key == byKey && n.By == "":
			n.By = value
		}
	}
	return n, err
}

// ErrMisread tells of a note that would be read back as another one.
var ErrMisread = errors.New(`the reason reads like the line "until: TIME" and would end the maintenance then; word it differently`)

// Write puts a maintenance file at path, in one step: nobody sees half of it,
// and what stood there before is replaced. A directory that is missing is made.
// A reason that is a line with an end is refused with ErrMisread.
func Write(path string, n Note) error {
	// Written by hand such a first line is an end, so it cannot be a reason.
	if back, _ := parse(cleaned(n.Reason)); !back.Until.IsZero() {
		return fmt.Errorf("writing maintenance file %s: %w", path, ErrMisread)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing maintenance file %s: %w", path, bare(err))
	}
	if err := renameio.WriteFile(path, []byte(n.String()), 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("writing maintenance file %s: %w", path, bare(err))
	}
	return nil
}

// Remove takes the file at path away, and tells whether there was one.
func Remove(path string) (removed bool, err error) {
	err = os.Remove(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("removing maintenance file %s: %w", path, bare(err))
}

// bare is an error without the path, which may be that of a temporary file.
func bare(err error) error {
	var of *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &of):
		return of.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
