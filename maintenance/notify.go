package maintenance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// notifier watches all directories that lead to the file, from the root down,
// as far as they exist. The last one tells of the file. The others tell when one
// below them is made, removed, renamed or replaced by a link, which takes the
// watch away without a word or leaves it on the wrong directory.
//
// A file system mounted over one of them sends no event; arm, called at each
// poll, sees it. An event says only that it is time to look; what it says in
// detail is old by the time it is read.
type notifier struct {
	dirs  []string // "/", "/etc", "/etc/lb"
	names []string // "etc", "lb", "disable"
	// armed is what is watched at each of dirs; nil: nothing.
	armed   []fs.FileInfo
	open    func() (*fsnotify.Watcher, error)
	watcher *fsnotify.Watcher // nil where inotify cannot be had
	// any has every name in the last directory count, and not one alone.
	any bool
	// fault is why not everything that exists is watched.
	fault error
}

func newNotifier(path string) *notifier {
	n := &notifier{open: fsnotify.NewWatcher}
	for path != filepath.Dir(path) {
		n.names = append(n.names, filepath.Base(path))
		path = filepath.Dir(path)
		n.dirs = append(n.dirs, path)
	}
	slices.Reverse(n.dirs)
	slices.Reverse(n.names)
	n.armed = make([]fs.FileInfo, len(n.dirs))
	return n
}

// newDirectoryNotifier watches a directory for whatever is in it.
func newDirectoryNotifier(dir string) *notifier {
	n := newNotifier(filepath.Join(dir, "any"))
	n.any = true
	return n
}

// depth is the number of directories on the way to the file.
func (n *notifier) depth() int {
	if n == nil {
		return 0
	}
	return len(n.dirs)
}

// events are nil, which never sends, where there is no watch.
func (n *notifier) events() <-chan fsnotify.Event {
	if n == nil || n.watcher == nil {
		return nil
	}
	return n.watcher.Events
}

// errors tell that events were lost.
func (n *notifier) errors() <-chan error {
	if n == nil || n.watcher == nil {
		return nil
	}
	return n.watcher.Errors
}

// concerns tells whether an event is a cause to look. Directories such as /etc
// and /tmp are busy, so the names on the path are all that counts. Names are
// compared without their directory: where a link makes two of the directories
// the same one, events carry the path of one of them.
func (n *notifier) concerns(event fsnotify.Event) bool {
	if n.any && filepath.Dir(event.Name) == n.dirs[len(n.dirs)-1] {
		return true
	}
	i := slices.Index(n.names, filepath.Base(event.Name))
	if i < 0 {
		return false
	}
	if i < len(n.names)-1 && event.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) {
		// A directory made anew may have the inode number of the one
		// before it, so comparing does not tell them apart.
		n.forget()
	}
	return true
}

// forget makes arm watch everything anew.
func (n *notifier) forget() { clear(n.armed) }

// verify forgets what the kernel has stopped watching.
func (n *notifier) verify() {
	if n == nil || n.watcher == nil {
		return
	}
	watched := n.watcher.WatchList()
	for i, dir := range n.dirs {
		if !slices.Contains(watched, dir) {
			n.armed[i] = nil
		}
	}
}

// arm watches each directory that exists and is not the one watched already. It
// reports whether there was any, and sets fault.
func (n *notifier) arm() (changed bool) {
	if n == nil {
		return false
	}
	n.fault = nil
	if n.watcher == nil {
		watcher, err := n.open()
		if err != nil {
			n.fault = hinted("opening inotify", err)
			return false
		}
		n.watcher = watcher
		n.forget()
	}
	for i, dir := range n.dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			if n.armed[i] != nil {
				n.watcher.Remove(dir) // fails where the kernel did so already
				n.armed[i] = nil
			}
			continue
		}
		if n.armed[i] != nil && os.SameFile(n.armed[i], info) {
			continue
		}
		n.watcher.Remove(dir) // or the watch would stay on the former directory
		n.armed[i] = nil
		if err := n.watcher.Add(dir); err != nil {
			if n.fault == nil && !errors.Is(err, fs.ErrNotExist) {
				n.fault = hinted("watching "+dir, err)
			}
			continue
		}
		n.armed[i] = info
		changed = true
	}
	return changed
}

func (n *notifier) close() {
	if n != nil && n.watcher != nil {
		n.watcher.Close()
	}
}

// hinted adds what to raise where inotify's error names something else.
func hinted(doing string, err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%s: %w (sysctl fs.inotify.max_user_instances is used up)", doing, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s: %w (sysctl fs.inotify.max_user_watches is used up)", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
