package maintenance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
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
	return start(t, path, senses{poll: time.Hour, notify: newNotifier(path), examine: look})
}

// byPolling observes path without events.
func byPolling(t *testing.T, path string) *observed {
	t.Helper()
	return start(t, path, senses{poll: 20 * time.Millisecond, notify: deaf(path), examine: look})
}

func start(t *testing.T, path string, with senses) *observed {
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
	o.Watcher = watch(t.Context(), path, changed, log, with)
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
	woke := make(chan struct{}, 1)
	w := Watch(t.Context(), "lb/./disable/", func() { woke <- struct{}{} }, slog.New(slog.DiscardHandler))
	defer w.Close()
	write(t, "lb/disable", "")
	<-woke
	if s := w.State(); !s.Present || s.Path != dir+"/lb/disable" {
		t.Errorf("got %+v, want %q present", s, dir+"/lb/disable")
	}
}
