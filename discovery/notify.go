package discovery

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// notifier watches the directory of a file, and that of what it leads to where
// it is a link, which is how a ConfigMap is mounted. A watch on the file itself
// would end with the first rename.
//
// It need not be complete, because the file is polled too: what happens further
// up, such as a directory that is replaced or mounted over, is seen when arm is
// called next.
type notifier struct {
	path string
	// armed is what is watched, by the path of the directory.
	armed map[string]fs.FileInfo
	// names are those of the file and of what it leads to.
	names   [2]string
	open    func() (*fsnotify.Watcher, error)
	watcher *fsnotify.Watcher // nil while the host has no inotify instance left
}

// newNotifier is a notifier that watches nothing yet.
func newNotifier(path string) *notifier {
	return &notifier{path: path, armed: make(map[string]fs.FileInfo), open: fsnotify.NewWatcher}
}

// events are nil, which never sends, where there is no watch.
func (n *notifier) events() <-chan fsnotify.Event {
	if n.watcher == nil {
		return nil
	}
	return n.watcher.Events
}

// errors tell that events were lost.
func (n *notifier) errors() <-chan error {
	if n.watcher == nil {
		return nil
	}
	return n.watcher.Errors
}

// concerns tells whether an event is about the file by name. One that is not may
// still change it: the directory that its link leads through is replaced.
func (n *notifier) concerns(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	return name == n.names[0] || name == n.names[1]
}

// forget makes arm watch everything anew.
func (n *notifier) forget() { clear(n.armed) }

// arm watches the directories that there are now.
func (n *notifier) arm() {
	if n.watcher == nil {
		watcher, err := n.open()
		if err != nil {
			return
		}
		n.watcher = watcher
	}
	target := n.path
	if resolved, err := filepath.EvalSymlinks(n.path); err == nil {
		target = resolved
	}
	n.names = [2]string{filepath.Base(n.path), filepath.Base(target)}
	wanted := map[string]bool{filepath.Dir(n.path): true, filepath.Dir(target): true}
	for dir := range n.armed {
		if !wanted[dir] {
			n.watcher.Remove(dir) // fails where the kernel did so already
			delete(n.armed, dir)
		}
	}
	watched := n.watcher.WatchList()
	for dir := range wanted {
		info, err := os.Stat(dir)
		// The kernel ends the watch of a directory that is removed, and the
		// next one may have its inode number.
		if was := n.armed[dir]; err == nil && was != nil && os.SameFile(was, info) && slices.Contains(watched, dir) {
			continue
		}
		// First, or the watch would stay on the directory that was there.
		n.watcher.Remove(dir)
		delete(n.armed, dir)
		if err == nil && n.watcher.Add(dir) == nil {
			n.armed[dir] = info
		}
	}
}

func (n *notifier) close() {
	if n.watcher != nil {
		n.watcher.Close()
	}
}
