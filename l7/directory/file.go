package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

const (
	// fileAfter is how long the file waits for more changes.
	fileAfter = time.Second
	// fileShare bounds the part of the time that goes into writing the file: a
	// file that takes 100 ms is written every 2 s at most.
	fileShare = 20
	// maxFile bounds the file that is read at the start, in bytes.
	maxFile = 256 << 20
)

// head opens the file. HAProxy skips lines that begin with #.
const head = "# Kept by lb7d from the directory's answers; what is changed here by hand is lost.\n"

// landing is the file that a path leads to by symbolic links, whether it exists
// or not. The map's file is replaced there: in a directory of lb7d's own, so
// that it need not be able to write where HAProxy's configuration is.
func landing(path string) string {
	for range 8 { // a circle leads nowhere, which the write then tells
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return path
}

// readFile reads a map's file, host by host. One that does not exist is empty:
// HAProxy refuses to start without it, so it is made at once.
func readFile(path string) (func(yield func(host, backend string) bool), error) {
	none := func(func(string, string) bool) {}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := renameio.WriteFile(landing(path), []byte(head), 0o644, renameio.WithStaticPermissions(0o644)); err != nil {
			return none, fmt.Errorf("making the map's file %s: %w", path, err)
		}
		return none, nil
	case err == nil && info.Size() > maxFile:
		return none, fmt.Errorf("reading the map's file %s: over %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return none, fmt.Errorf("reading the map's file: %w", err)
	}
	return func(yield func(string, string) bool) {
		for line := range strings.Lines(string(text)) {
			host, backend, ok := strings.Cut(strings.TrimSpace(line), " ")
			if ok && host[0] != '#' && !yield(host, strings.TrimSpace(backend)) {
				return
			}
		}
	}, nil
}

// fileText is the file for some hosts.
func fileText(pairs []pair) []byte {
	var b bytes.Buffer
	b.Grow(len(head) + 48*len(pairs))
	b.WriteString(head)
	for _, p := range pairs {
		b.WriteString(p.host)
		b.WriteByte(' ')
		b.WriteString(p.backend)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// keepFile writes the file where it differs from the table and it is time to,
// or at once where now says so; at one stroke, so that a HAProxy that starts
// reads one state or the next and nothing between.
func (k *keeper) keepFile(now bool) {
	d := k.d
	if k.wantFile.IsZero() || !now && time.Since(k.wantFile) < max(fileAfter, fileShare*k.fileTook) {
		return
	}
	start := time.Now()
	d.mu.Lock()
	pairs := d.table.pairs()
	d.mu.Unlock()
	sortPairs(pairs)
	text := fileText(pairs)
	var err error
	wrote := false
	if k.written == nil {
		k.written, _ = os.ReadFile(d.cfg.Map) // as a process before this one left it
	}
	if !bytes.Equal(text, k.written) {
		if err = renameio.WriteFile(landing(d.cfg.Map), text, 0o644, renameio.WithStaticPermissions(0o644)); err == nil {
			k.written, wrote = text, true
		}
	}
	k.fileTook = time.Since(start)
	k.wantFile = time.Time{}
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.now.file
	d.now.file = ""
	switch {
	case err != nil:
		k.wantFile = start // again, after the pause
		d.now.file = fmt.Sprintf("the map's file is not written: %v", err)
		if was == "" {
			d.log.Warn("the map's file is not written; a reload of HAProxy would start from an old one", "err", err)
		}
	case wrote:
		d.count.FileWrites++
	}
}

// removeStale takes away a socket's file that nobody serves any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("%s is served by another process", path)
	}
	return os.Remove(path)
}
