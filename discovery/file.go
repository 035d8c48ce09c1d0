package discovery

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// filePoll is how long a change can stand unseen where no event tells of
	// it, and how often a list that stays is confirmed.
	filePoll = time.Second
	// fileQuiet is how long the events must have ceased before the file is
	// read. A file that is rewritten in place, in several writes, is then
	// read once it is whole, not in between, where YAML that lacks its end
	// is a shorter list.
	fileQuiet = 10 * time.Millisecond
	// fileHaste is how long events that do not cease can put off reading.
	fileHaste = time.Second
	// fileDoubt is how long a file that cannot be read, or not be parsed, is
	// given to get whole before it is told of.
	fileDoubt = 200 * time.Millisecond
)

// File is a file in the form of Prometheus's file_sd: YAML where it ends in .yml
// or .yaml, JSON otherwise. It is watched through its directory, so it is best
// replaced by renaming; a file that is not there or not whole is a failure and
// no empty list.
//
// Prometheus would resolve host names when it connects. Here a target is an IP
// address and a port: see checkTarget.
type File struct {
	Path string
}

// String names the file.
func (f File) String() string { return "file " + f.Path }

// Run watches the file until ctx ends.
func (f File) Run(ctx context.Context, tell func([]Entry, error)) {
	path := f.Path
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	w := &fileWatch{path: path, tell: tell, poll: filePoll, notify: newNotifier(path)}
	w.run(ctx)
}

// fileWatch is one Run of a File.
type fileWatch struct {
	path   string
	tell   func([]Entry, error)
	poll   time.Duration
	notify *notifier

	// entries are those of the last good reading; nil: there was none. seen
	// is what the file was then; nil: it has to be read again.
	entries []Entry
	seen    fs.FileInfo
	// failing is when the present run of failures began; zero: the last
	// reading was good. doubt: nobody was told of it yet.
	failing time.Time
	doubt   bool
	// rested is when the next reading may be. A file that is written to all
	// the time costs a quarter of a processor, however large it is.
	rested time.Time
}

func (w *fileWatch) run(ctx context.Context) {
	defer w.notify.close()
	poll := time.NewTicker(w.poll)
	defer poll.Stop()

	// The watch comes before the first reading, so that nothing falls
	// between them.
	w.notify.arm()
	w.read()

	var first time.Time // of the events that are not followed yet
	next := time.NewTimer(0)
	next.Stop()
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.notify.events():
			// What else happens in the directory may have changed the file,
			// but it must not put off a reading that is due.
			if !w.notify.concerns(event) && (!first.IsZero() || !w.altered()) {
				continue
			}
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			quiet := min(fileQuiet, first.Add(fileHaste).Sub(now))
			next.Reset(max(quiet, w.rested.Sub(now)))
			continue
		case <-w.notify.errors():
			// Events were lost. The poll comes soon enough for the file,
			// but the directories have to be looked at anew.
			w.notify.forget()
			continue
		case <-poll.C:
			w.notify.arm()
			if !first.IsZero() || w.doubt {
				continue // it will be read soon
			}
			if w.failing.IsZero() && !w.altered() {
				w.tell(w.entries, nil)
				continue
			}
		case <-next.C:
			w.notify.arm() // a link may lead elsewhere now
		}
		first = time.Time{}
		w.read()
		if w.doubt {
			next.Reset(time.Until(w.failing.Add(fileDoubt)))
		}
	}
}

// altered tells whether the file is another than was read, as far as that can be
// seen without reading it.
func (w *fileWatch) altered() bool {
	info, err := os.Stat(w.path)
	if err != nil {
		return w.failing.IsZero()
	}
	return w.seen == nil || !sameFile(info, w.seen)
}

// sameFile tells whether nothing has been written between two looks.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read reads the file and tells what is in it.
func (w *fileWatch) read() {
	start := time.Now()
	info, _ := os.Stat(w.path)
	entries, err := readFile(w.path)
	now := time.Now()
	w.rested = now.Add(3 * now.Sub(start))
	if err != nil {
		if w.failing.IsZero() {
			w.failing = now
		}
		w.seen = nil
		// The first answer is told whatever it is: somebody waits for it.
		w.doubt = w.entries != nil && now.Sub(w.failing) < fileDoubt
		if !w.doubt {
			w.tell(nil, err)
		}
		return
	}
	w.failing, w.doubt = time.Time{}, false
	w.entries, w.seen = entries, info
	// A write within the clock tick of the last one leaves no trace in the
	// times, so a file this fresh is read once more at the next poll.
	if info != nil && start.Sub(info.ModTime()).Abs() < 2*fileQuiet {
		w.seen = nil
	}
	w.tell(entries, nil)
}

// readFile reads and parses the file at path.
func readFile(path string) ([]Entry, error) {
	data, err := readRegular(path)
	if err != nil {
		return nil, fmt.Errorf("reading the server list: %w", err)
	}
	parse := ParseJSON
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yml", ".yaml":
		parse = ParseYAML
	}
	entries, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading the server list %s: %w", path, err)
	}
	return entries, nil
}
