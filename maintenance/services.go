package maintenance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// servicesSuffix makes the directory of the services' files out of the path of
// the host's.
const servicesSuffix = ".d"

// maxFiles bounds how many files of services are looked at: as many as there can
// be services.
const maxFiles = 4096

// maxNew is how many files of services that are new within newEvery are logged,
// each with its coming and going. Whoever fills the directory does not fill the
// log with it; all of them count.
const (
	maxNew   = 64
	newEvery = time.Minute
)

// directory holds one file for each service that wants no traffic. The name of a
// file is that of the service; those that begin with a dot are being written, or
// an editor's.
type directory struct {
	path    string
	examine func(path string) sight
	patient bool
	log     *slog.Logger

	fresh  int // files that were new since the time below
	since  time.Time
	looked bool
	files  map[string]*entry
	// err is why the directory could not be listed, or not all of it. What
	// was known before then stands; blind tells that nothing was.
	err   error
	blind bool
}

// look takes one look at every file and tells whether anything has changed.
func (d *directory) look(now time.Time, asked bool) (changed bool) {
	names, err := list(d.path)
	first := !d.looked
	d.looked = true
	switch {
	case err != nil && !sameError(d.err, err):
		d.log.Warn("maintenance directory cannot be examined", "path", d.path, "err", err)
		changed = true
	case err == nil && d.err != nil:
		d.log.Info("maintenance directory can be examined again", "path", d.path)
		changed = true
	}
	d.err = err
	if names == nil && err != nil {
		d.blind = d.blind || first
		return changed
	}
	d.blind = false
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
		e := d.files[name]
		path := filepath.Join(d.path, name)
		found := d.examine(path)
		switch {
		case e != nil:
			changed = e.look(found, now, asked) || changed
		case found.present || found.expired || found.unknown:
			e = &entry{state: State{Path: path}, patient: d.patient, log: d.logOf(path, now)}
			if d.files == nil {
				d.files = map[string]*entry{}
			}
			d.files[name] = e
			if first {
				e.begin(found, now)
				break
			}
			if found.blank() {
				time.Sleep(content)
				found = d.examine(path)
			}
			changed = e.look(found, now, asked) || changed
		}
	}
	for name, e := range d.files {
		if !there[name] {
			changed = e.look(sight{}, now, asked) || changed
			// One that comes and goes is remembered until it is calm.
			if !e.state.Present && now.Sub(e.hold.last) > maxAway {
				delete(d.files, name)
			}
		}
	}
	return changed
}

// logOf is where the coming and going of a file that is new is logged.
func (d *directory) logOf(path string, now time.Time) *slog.Logger {
	if now.Sub(d.since) >= newEvery {
		d.fresh, d.since = 0, now
	}
	d.fresh++
	switch {
	case d.fresh <= maxNew:
		return d.log
	case d.fresh == maxNew+1:
		d.log.Warn("maintenance directory gets many files at once; they count and are not logged from this one on", "path", path, "most", maxNew, "within", newEvery)
	}
	return slog.New(slog.DiscardHandler)
}

// present are the files that count.
func (d *directory) present() map[string]State {
	var out map[string]State
	for name, e := range d.files {
		if e.state.Present {
			if out == nil {
				out = map[string]State{}
			}
			out[name] = e.state
		}
	}
	return out
}

// list names the files in a directory. With an error the names are those that
// could be listed, and nil where none could.
func list(path string) (names []string, err error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	switch {
	// What is no directory holds no files.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("examining maintenance directory: %w", err)
	}
	defer dir.Close()
	all, err := dir.Readdirnames(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("examining maintenance directory: %w", err)
	}
	names = []string{}
	for _, name := range all[:min(len(all), maxFiles)] {
		if !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	if len(all) > maxFiles {
		return names, fmt.Errorf("examining maintenance directory %s: it has more than %d files; the others are not looked at", path, maxFiles)
	}
	return names, nil
}
