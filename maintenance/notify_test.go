package maintenance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

// TestPollingAlone says once that it is all there is, and again when it is not.
func TestPollingAlone(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	full := true
	n := newNotifier(dir + "/disable")
	n.open = func() (*fsnotify.Watcher, error) {
		mu.Lock()
		defer mu.Unlock()
		if full {
			return nil, syscall.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	o := start(t, dir+"/disable", senses{poll: 20 * time.Millisecond, notify: n, examine: look})
	write(t, dir+"/disable", "")
	o.awaitPresent("polled")
	mu.Lock()
	full = false
	mu.Unlock()
	for end := time.Now().Add(patience); !strings.Contains(o.lines(dir), "watched again"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("inotify was not tried again; log:\n%s", o.lines(dir))
		}
	}
	const want = `level=WARN msg="maintenance file is only polled" path=/disable every=20ms err="opening inotify: too many open files (sysctl fs.inotify.max_user_instances is used up)"
level=INFO msg="maintenance file appeared" path=/disable reason=""
level=INFO msg="maintenance file is watched again" path=/disable
`
	if diff := cmp.Diff(want, o.lines(dir)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestPollingFindsWhatNoEventTells: the directory is replaced behind a link,
// where nothing is watched. Afterwards events come from the right one.
func TestPollingFindsWhatNoEventTells(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/far/a/lb", 0o755))
	must(t, os.MkdirAll(dir+"/far/b/lb", 0o755))
	must(t, os.Symlink("far/a/lb", dir+"/lb"))
	o := start(t, dir+"/lb/disable", senses{poll: 20 * time.Millisecond, notify: newNotifier(dir + "/lb/disable"), examine: look})
	must(t, os.Rename(dir+"/far/a", dir+"/far/old"))
	must(t, os.Rename(dir+"/far/b", dir+"/far/a"))
	write(t, dir+"/lb/disable", "")
	o.awaitPresent("in the new directory")
	o.Close()
	if o.notify.fault != nil || slices.Contains(o.notify.armed, nil) {
		t.Errorf("not everything is watched: %v, fault %v", o.notify.armed, o.notify.fault)
	}
	if info, err := os.Stat(dir + "/lb"); err != nil || !os.SameFile(info, o.notify.armed[len(o.notify.armed)-1]) {
		t.Errorf("another directory is watched than %v (%v)", info, err)
	}
}

// TestLostWatchIsFound where the kernel dropped a watch without an event that
// anybody saw.
func TestLostWatchIsFound(t *testing.T) {
	dir := t.TempDir()
	n := newNotifier(dir + "/disable")
	defer n.close()
	if !n.arm() || n.arm() {
		t.Fatal("arm does not settle")
	}
	must(t, n.watcher.Remove(dir))
	n.verify()
	if !n.arm() || n.fault != nil {
		t.Errorf("the lost watch was not set again; fault %v", n.fault)
	}
}

// TestBurstIsMerged: a thousand touches cost few looks and tell one change.
func TestBurstIsMerged(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/disable"
	var looked atomic.Int64
	o := start(t, path, senses{poll: time.Hour, notify: newNotifier(path), examine: func(path string) sight {
		looked.Add(1)
		return look(path)
	}})
	write(t, path, "")
	o.awaitPresent("touched")
	before := looked.Load()

	began := time.Now()
	for range 1000 {
		write(t, path, "")
	}
	must(t, os.Remove(path))
	o.awaitAbsent("removed after the burst")
	took := time.Since(began)

	looks := looked.Load() - before
	t.Logf("%d looks in %v", looks, took)
	if limit := 10 + int64(took/lookEvery); looks > limit {
		t.Errorf("%d looks in %v, want at most %d", looks, took, limit)
	}
	if n := o.changes(); n != 2 {
		t.Errorf("%d changes told, want 2", n)
	}
}

// TestQuick: the time from touch to changed is part of what a withdrawal takes.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disable")
	o := byEvents(t, path)
	var came, went []time.Duration
	for range 50 {
		// Rested, as it is when somebody comes; see lookEvery.
		time.Sleep(2 * lookEvery)
		began := time.Now()
		write(t, path, "")
		o.awaitPresent("touched")
		o.mu.Lock()
		came = append(came, o.at.Sub(began))
		o.mu.Unlock()

		time.Sleep(2 * lookEvery)
		began = time.Now()
		must(t, os.Remove(path))
		o.awaitAbsent("removed")
		o.mu.Lock()
		went = append(went, o.at.Sub(began))
		o.mu.Unlock()
	}
	slices.Sort(came)
	slices.Sort(went)
	t.Logf("touch to changed: median %v, worst %v; remove to changed: median %v, worst %v", came[25], came[49], went[25], went[49])
	if limit := 100 * time.Millisecond; came[25] > limit || went[25] > limit {
		t.Errorf("medians %v and %v, want at most %v", came[25], went[25], limit)
	}
}
