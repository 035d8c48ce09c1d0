package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

// maxFile is the largest file that is read, in bytes: room for a line of words
// and for comments.
const maxFile = 4096

// ErrNoFile is returned where there is no agent check file.
var ErrNoFile = errors.New("no agent check file")

// Read reads and parses the file. It neither blocks nor reads more than a page,
// whatever is at path; what is not a regular file is refused, and links are
// followed. The error is ErrNoFile where there is none.
func Read(path string) (Answer, error) {
	content, err := readFile(path)
	if err != nil {
		return Answer{}, err
	}
	a, err := Parse(content)
	if err != nil {
		return Answer{}, fmt.Errorf("parsing agent check file: %w", err)
	}
	return a, nil
}

func readFile(path string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		// A path that leads through a file cannot exist either.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil, ErrNoFile
		}
		return nil, fmt.Errorf("reading agent check file: %w", err)
	}
	// Before it is opened: opening a device may do something, and opening a
	// pipe waits for a writer.
	info, err := os.Stat(path)
	if err != nil {
		// A link that leads nowhere is somebody's mistake, and not no file.
		if _, dangling := os.Readlink(path); dangling == nil {
			return nil, fmt.Errorf("reading agent check file: it is a link that leads nowhere: %w", err)
		}
		return fail(err)
	}
	if err := regular(path, info); err != nil {
		return nil, err
	}
	// It may have been replaced by a pipe since. O_NONBLOCK has no effect on
	// a regular file.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return fail(err)
	}
	if err := regular(path, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return fail(err)
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("reading agent check file: %s has more than %d bytes, and one line is enough", path, maxFile)
	}
	return content, nil
}

func regular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("reading agent check file: %s is no regular file but %s", path, info.Mode().Type())
}

// Write has the file say the given words, such as "drain", for that reason, which
// may be empty. A reader sees the old content or the new one, and the file is
// readable for all. A reason with a line break or another control character, or
// one that is too long, is refused.
func Write(path, words, reason string) error {
	if err := writable(reason); err != nil {
		return err
	}
	if strings.ContainsAny(words, "#\r\n") {
		return fmt.Errorf("writing agent check file: %s has a sharp or a line break in it; the reason is an argument of its own", quote(words))
	}
	a, err := Parse([]byte(words))
	if err != nil {
		return fmt.Errorf("writing agent check file: %w", err)
	}
	a.Reason = tidy(reason)
	if err := renameio.WriteFile(path, []byte(a.String()+"\n"), 0o644, renameio.WithStaticPermissions(0o644)); err != nil {
		return fmt.Errorf("writing agent check file: %w", err)
	}
	return nil
}

func writable(reason string) error {
	switch {
	case !utf8.ValidString(reason):
		return fmt.Errorf("writing agent check file: reason %s is not valid UTF-8", quote(reason))
	case strings.ContainsFunc(reason, unicode.IsControl) || strings.ContainsAny(reason, "\u2028\u2029"):
		return fmt.Errorf("writing agent check file: reason %s has a line break or a control character in it: say it in one line", quote(reason))
	case len(reason) > maxReason:
		return fmt.Errorf("writing agent check file: the reason has %d bytes, and at most %d fit", len(reason), maxReason)
	}
	return nil
}

// Remove removes the file, so that the default is answered. It returns whether
// there was one.
func Remove(path string) (bool, error) {
	err := os.Remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("removing agent check file: %w", err)
	}
	return true, nil
}
