package maintenance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

// patience is how long a change may take before a test gives up on it.
const patience = 20 * time.Second

// observed is a Watcher with what it told.
type observed struct {
	*Watcher
	t    *testing.T
	woke chan struct{}

	mu   sync.Mutex
	log  bytes.Buffer
	told int
	at   time.Time // of the last change told
}

// Write takes a line of the log.
func (o *observed) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log.Write(b)
}

// lines is the log so far, with root left out of the paths.
func (o *observed) lines(root string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ReplaceAll(o.log.String(), root, "")
}

// changes is how many changes were told.
func (o *observed) changes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// deaf is a notifier on a host that has no inotify instance left.
func deaf(path string) *notifier {
	n := newNotifier(path)
	n.open = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	return n
}

// byEvents observes path with a poll so rare that only events can tell in time.
func byEvents(t *testing.T, path string) *observed {
	t.Helper()
	return start(t, path, time.Hour, newNotifier)
}

// byPolling observes path without events.
func byPolling(t *testing.T, path string) *observed {
	t.Helper()
	return start(t, path, 20*time.Millisecond, deaf)
}

func start(t *testing.T, path string, poll time.Duration, notifier func(string) *notifier) *observed {
	t.Helper()
	o := &observed{t: t, woke: make(chan struct{}, 1)}
	log := slog.New(slog.NewTextHandler(o, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	changed := func() {
		o.mu.Lock()
		o.told++
		o.at = time.Now()
		o.mu.Unlock()
		select {
		case o.woke <- struct{}{}:
		default:
		}
	}
	o.Watcher = watch(t.Context(), path, changed, log, poll, notifier)
	t.Cleanup(o.Close)
	return o
}

// await returns once what is known fits, as told by changed.
func (o *observed) await(what string, fits func(State) bool) State {
	o.t.Helper()
	timeout := time.After(patience)
	for {
		if s := o.State(); fits(s) {
			return s
		}
		select {
		case <-o.woke:
		case <-timeout:
			o.t.Fatalf("%s: still %+v after %v", what, o.State(), patience)
		}
	}
}

func (o *observed) awaitPresent(what string) State {
	o.t.Helper()
	return o.await(what, func(s State) bool { return s.Present })
}

func (o *observed) awaitAbsent(what string) State {
	o.t.Helper()
	return o.await(what, func(s State) bool { return !s.Present })
}

func (o *observed) awaitReason(reason string) State {
	o.t.Helper()
	return o.await(fmt.Sprintf("reason %q", reason), func(s State) bool { return s.Present && s.Reason == reason })
}

// must ends the test where preparing it fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file with text.
func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// TestFileComesAndGoes in all the ways in which people and tools make and
// remove files. Each is seen through events alone and through polling alone.
func TestFileComesAndGoes(t *testing.T) {
	for _, tt := range []struct {
		name string
		// prepare runs before the watch; change after it. dir is where
		// lb/disable is watched.
		prepare func(t *testing.T, dir string)
		change  func(t *testing.T, dir string)
		present bool
		reason  string
	}{
		{
			name:    "touched",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/lb/disable", "") },
			present: true,
		},
		{
			name:    "written",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/lb/disable", "new kernel\nby night\n") },
			present: true,
			reason:  "new kernel",
		},
		{
			name:    "removed",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Remove(dir+"/lb/disable")) },
		},
		{
			name:    "renamed to",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/new", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/new", dir+"/lb/disable")) },
			present: true,
			reason:  "x",
		},
		{
			name: "renamed over",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/lb/disable", "old")
				write(t, dir+"/lb/disable.new", "new")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb/disable.new", dir+"/lb/disable")) },
			present: true,
			reason:  "new",
		},
		{
			name:    "renamed from",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb/disable", dir+"/lb/enable")) },
		},
		{
			name:    "with its directory",
			prepare: func(*testing.T, string) {},
			change:  func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name: "with a directory moved in",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb.new", 0o755))
				write(t, dir+"/lb.new/disable", "x")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb.new", dir+"/lb")) },
			present: true,
			reason:  "x",
		},
		{
			name:    "its directory removed",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/lb")) },
		},
		{
			name:    "its directory moved away",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb", dir+"/lb.old")) },
		},
		{
			name: "its directory removed and made anew",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
			},
			change: func(t *testing.T, dir string) {
				must(t, os.Remove(dir+"/lb"))
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/lb/disable", "x")
			},
			present: true,
			reason:  "x",
		},
		{
			name: "its directory a link that is switched",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/a", 0o755))
				must(t, os.Mkdir(dir+"/b", 0o755))
				write(t, dir+"/b/disable", "in b")
				must(t, os.Symlink("a", dir+"/lb"))
				must(t, os.Symlink("b", dir+"/lb.new"))
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb.new", dir+"/lb")) },
			present: true,
			reason:  "in b",
		},
		{
			name: "in a directory behind a link",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/a", 0o755))
				must(t, os.Symlink("a", dir+"/lb"))
			},
			change:  func(t *testing.T, dir string) { write(t, dir+"/a/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name:    "in a directory that is a link to its parent",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink(".", dir+"/lb")) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name:    "a directory in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb/disable", 0o755)) },
			present: true,
		},
		{
			name:    "a dangling link in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", dir+"/lb/disable")) },
			present: true,
		},
		{
			name: "a link to a file in its place",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/why", "switch replaced")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("../why", dir+"/lb/disable")) },
			present: true,
			reason:  "switch replaced",
		},
		{
			name:    "a pipe in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir+"/lb/disable", 0o644)) },
			present: true,
		},
		{
			name:    "a link to a device in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("/dev/zero", dir+"/lb/disable")) },
			present: true,
		},
		{
			name:    "a file in the place of its directory",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/lb")); write(t, dir+"/lb", "") },
		},
	} {
		for way, observe := range map[string]func(*testing.T, string) *observed{"by events": byEvents, "by polling": byPolling} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				dir := t.TempDir()
				tt.prepare(t, dir)
				o := observe(t, dir+"/lb/disable")
				before := o.State()
				tt.change(t, dir)
				after := o.await("after the change", func(s State) bool { return s.Present == tt.present && s.Reason == tt.reason })
				if after.Err != nil {
					t.Errorf("error %v", after.Err)
				}
				if before.Present == after.Present && !after.Since.Equal(before.Since) {
					t.Errorf("since %v, want the former %v: it was present all the time", after.Since, before.Since)
				}
				if before.Present != after.Present && !after.Since.After(before.Since) {
					t.Errorf("since %v, want later than %v", after.Since, before.Since)
				}
			})
		}
	}
}

// TestDirectoriesComeAndGo many times, several levels deep. The file is seen in
// each of them: the watch follows.
func TestDirectoriesComeAndGo(t *testing.T) {
	root := t.TempDir()
	deep := root + "/srv/lb/maintenance"
	o := byEvents(t, deep+"/disable")
	for i := range 20 {
		must(t, os.MkdirAll(deep, 0o755))
		write(t, deep+"/disable", fmt.Sprint("round ", i))
		o.awaitReason(fmt.Sprint("round ", i))
		must(t, os.Remove(deep+"/disable"))
		o.awaitAbsent("file removed")
		write(t, deep+"/disable", "")
		o.awaitPresent("file made again")
		must(t, os.RemoveAll(root+"/srv"))
		o.awaitAbsent("directories removed")
	}
}

// TestPresentAtTheStart: a host that starts under maintenance knows it before it
// can have announced anything.
func TestPresentAtTheStart(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/disable", "moved to rack 7\n")
	began := time.Now()
	o := byEvents(t, dir+"/disable")
	got := o.State()
	if got.Since.Before(began) {
		t.Errorf("since %v, before the watch began", got.Since)
	}
	got.Since = time.Time{}
	want := State{Path: dir + "/disable", Present: true, Reason: "moved to rack 7"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first state (-want +got):\n%s", diff)
	}
	const line = "level=INFO msg=\"maintenance file is present at the start\" path=/disable reason=\"moved to rack 7\"\n"
	if diff := cmp.Diff(line, o.lines(dir)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if n := o.changes(); n != 0 {
		t.Errorf("%d changes told, want none", n)
	}
}

// TestLogTellsChanges and nothing else.
func TestLogTellsChanges(t *testing.T) {
	dir := t.TempDir()
	o := byEvents(t, dir+"/disable")
	move := func(text string) {
		write(t, dir+"/new", text)
		must(t, os.Rename(dir+"/new", dir+"/disable"))
	}
	move("kernel")
	o.awaitReason("kernel")
	move("kernel and firmware")
	o.awaitReason("kernel and firmware")
	move("kernel and firmware")
	write(t, dir+"/another file", "")
	must(t, os.Remove(dir+"/disable"))
	o.awaitAbsent("removed")
	o.Close()
	const want = `level=INFO msg="maintenance file appeared" path=/disable reason=kernel
level=INFO msg="maintenance file says" path=/disable reason="kernel and firmware"
level=INFO msg="maintenance file removed" path=/disable
`
	if diff := cmp.Diff(want, o.lines(dir)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if n := o.changes(); n != 3 {
		t.Errorf("%d changes told, want 3", n)
	}
}

// TestFaultKeepsTheKnownState: see State.Present. A link that leads to itself
// stands for the faults that the superuser of a test machine does not meet.
func TestFaultKeepsTheKnownState(t *testing.T) {
	for _, tt := range []struct {
		name    string
		present bool
		log     string
	}{
		{"absent", false, `level=WARN msg="maintenance file cannot be examined" path=/lb/disable present=false err="examining maintenance file: lstat /lb/disable: too many levels of symbolic links"
level=INFO msg="maintenance file can be examined again" path=/lb/disable present=false
`},
		{"present", true, `level=INFO msg="maintenance file is present at the start" path=/lb/disable reason=x
level=WARN msg="maintenance file cannot be examined" path=/lb/disable present=true err="examining maintenance file: lstat /lb/disable: too many levels of symbolic links"
level=INFO msg="maintenance file can be examined again" path=/lb/disable present=true
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Mkdir(dir+"/a", 0o755))
			must(t, os.Symlink("a", dir+"/lb"))
			if tt.present {
				write(t, dir+"/a/disable", "x")
			}
			o := byEvents(t, dir+"/lb/disable")
			before := o.State()

			must(t, os.Symlink("lb", dir+"/loop"))
			must(t, os.Rename(dir+"/loop", dir+"/lb"))
			during := o.await("fault", func(s State) bool { return s.Err != nil })
			during.Err = nil
			if diff := cmp.Diff(before, during); diff != "" {
				t.Errorf("state during the fault, apart from the error (-before +during):\n%s", diff)
			}

			must(t, os.Symlink("a", dir+"/whole"))
			must(t, os.Rename(dir+"/whole", dir+"/lb"))
			after := o.await("no fault", func(s State) bool { return s.Err == nil })
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("state after the fault (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(tt.log, o.lines(dir)); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaultAtTheStartCountsAsPresent until the file can be examined.
func TestFaultAtTheStartCountsAsPresent(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("lb", dir+"/lb"))
	o := byEvents(t, dir+"/lb/disable")
	if s := o.State(); !s.Present || s.Err == nil {
		t.Errorf("first state %+v, want present with an error", s)
	}
	must(t, os.Remove(dir+"/lb"))
	if s := o.awaitAbsent("the link is gone"); s.Err != nil {
		t.Errorf("error %v after the fault", s.Err)
	}
}

// TestPollingAlone says once that it is all there is, and again when it is not.
func TestPollingAlone(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	full := true
	o := start(t, dir+"/disable", 20*time.Millisecond, func(path string) *notifier {
		n := newNotifier(path)
		n.open = func() (*fsnotify.Watcher, error) {
			mu.Lock()
			defer mu.Unlock()
			if full {
				return nil, syscall.EMFILE
			}
			return fsnotify.NewWatcher()
		}
		return n
	})
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
	o := start(t, dir+"/lb/disable", 20*time.Millisecond, newNotifier)
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
	o := byEvents(t, dir+"/disable")
	write(t, dir+"/disable", "")
	o.awaitPresent("touched")
	o.mu.Lock()
	before := o.looks
	o.mu.Unlock()

	began := time.Now()
	for range 1000 {
		write(t, dir+"/disable", "")
	}
	must(t, os.Remove(dir+"/disable"))
	o.awaitAbsent("removed after the burst")
	took := time.Since(began)

	o.Watcher.mu.Lock()
	looks := o.looks - before
	o.Watcher.mu.Unlock()
	t.Logf("%d looks in %v", looks, took)
	if limit := 10 + int(took/lookEvery); looks > limit {
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
	if limit := 50 * time.Millisecond; came[25] > limit || went[25] > limit {
		t.Errorf("medians %v and %v, want at most %v", came[25], went[25], limit)
	}
}

// TestEndsWithItsContext and leaves no goroutine.
func TestEndsWithItsContext(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	w := Watch(ctx, filepath.Join(t.TempDir(), "disable"), func() {}, slog.New(slog.DiscardHandler))
	cancel()
	<-w.done
	w.Close()
	w.Close()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before the test", runtime.NumGoroutine(), before)
		}
	}
}

// TestPathIsMadeAbsolute, so that status and log name a file that can be found.
func TestPathIsMadeAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	must(t, err)
	must(t, os.Mkdir("lb", 0o755))
	o := byEvents(t, "lb/./disable/")
	write(t, "lb/disable", "")
	if s := o.awaitPresent("touched"); s.Path != dir+"/lb/disable" {
		t.Errorf("path %q, want %q", s.Path, dir+"/lb/disable")
	}
}
