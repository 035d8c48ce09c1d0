package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// hearer runs a source and hears what it tells.
type hearer struct {
	t    *testing.T
	told chan hearing
}

type hearing struct {
	at      time.Time
	entries []Entry
	err     error
}

// String is a hearing in one line: the targets, or the error.
func (h hearing) String() string {
	if h.err != nil {
		return "error: " + h.err.Error()
	}
	var words []string
	for _, e := range h.entries {
		word := e.Target
		if e.Name != "" {
			word = e.Name + "=" + word
		}
		if e.Fault != "" {
			word += "!" + e.Fault
		}
		for _, label := range []string{LabelWeight, LabelZone, LabelGroup, LabelExclude} {
			if v := e.Labels[label]; v != "" {
				word += "," + label + ":" + v
			}
		}
		words = append(words, word)
	}
	return "[" + strings.Join(words, " ") + "]"
}

// hear runs run until the test ends.
func hear(t *testing.T, run func(context.Context, func([]Entry, error))) *hearer {
	t.Helper()
	h := &hearer{t, make(chan hearing, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		run(ctx, func(entries []Entry, err error) { h.told <- hearing{time.Now(), entries, err} })
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return h
}

// next is what is told next.
func (h *hearer) next() hearing {
	h.t.Helper()
	select {
	case told := <-h.told:
		return told
	case <-time.After(patience):
		h.t.Fatal("nothing was told")
		return hearing{}
	}
}

// until skips what is told until a hearing begins with the words.
func (h *hearer) until(words string) hearing {
	h.t.Helper()
	deadline := time.After(patience)
	last := "nothing"
	for {
		select {
		case told := <-h.told:
			if last = told.String(); strings.HasPrefix(last, words) {
				return told
			}
		case <-deadline:
			h.t.Fatalf("%s was not told; the last was %s", words, last)
		}
	}
}

// isNext fails unless the next hearing is these words.
func (h *hearer) isNext(words string) {
	h.t.Helper()
	if got := h.next().String(); got != words {
		h.t.Errorf("told %s, want %s", got, words)
	}
}

// listOf is a file of these targets.
func listOf(targets ...string) []byte {
	data, _ := json.Marshal([]map[string][]string{{"targets": targets}})
	return data
}

// put writes a file aside and renames it into place.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", data, 0o644))
	must(t, os.Rename(path+".new", path))
}

// watchers are the ways in which a file is seen to change.
var watchers = map[string]func(path string) *fileWatch{
	"events": func(path string) *fileWatch {
		// No poll helps.
		return &fileWatch{path: path, poll: time.Hour, notify: newNotifier(path)}
	},
	"polling": func(path string) *fileWatch {
		n := newNotifier(path)
		n.open = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
		return &fileWatch{path: path, poll: 20 * time.Millisecond, notify: n}
	},
}

func (w *fileWatch) heard(ctx context.Context, tell func([]Entry, error)) {
	w.tell = tell
	w.run(ctx)
}

func TestFileChanges(t *testing.T) {
	for name, watch := range watchers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "servers.json")
			h := hear(t, watch(path).heard)
			h.until("error: reading the server list: stat " + path + ": no such file or directory")

			must(t, os.WriteFile(path, listOf("a:1"), 0o644))
			h.until("[a:1]")
			put(t, path, listOf("b:1"))
			h.until("[b:1]")
			// The same length, at once: no trace but in the content.
			must(t, os.WriteFile(path, listOf("c:1"), 0o644))
			h.until("[c:1]")
			must(t, os.WriteFile(path, listOf("d:1"), 0o644))
			h.until("[d:1]")

			must(t, os.Remove(path))
			h.until("error: reading the server list: stat")
			must(t, os.Symlink("elsewhere.json", path))
			put(t, dir+"/elsewhere.json", listOf("e:1"))
			h.until("[e:1]")
			put(t, path, listOf("f:1"))
			h.until("[f:1]")
			put(t, path, []byte(`[{"targets": 1}]`))
			h.until("error: reading the server list " + path + ": parsing JSON")
			put(t, path, listOf())
			h.until("[]")
		})
	}
}

// TestFileRewritten: a file that is written bit by bit is told of when it is
// whole, and not before.
func TestFileRewritten(t *testing.T) {
	for _, extension := range []string{".json", ".yaml"} {
		t.Run(extension, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "servers"+extension)
			put(t, path, listOf("a:1"))
			h := hear(t, watchers["events"](path).heard)
			h.isNext("[a:1]")

			file, err := os.Create(path)
			must(t, err)
			defer file.Close()
			for i := range 100 {
				line := "- targets: [\"b:%d\"]\n"
				if extension == ".json" {
					line = map[bool]string{true: "[", false: ","}[i == 0] + `{"targets":["b:%d"]}`
				}
				fmt.Fprintf(file, line, i)
				time.Sleep(time.Millisecond) // the pace of the writer, not a wait
			}
			if extension == ".json" {
				fmt.Fprint(file, "]")
			}
			told := h.next()
			for extension == ".yaml" && len(told.entries) < 100 {
				// On a busy machine the writer may have been away for
				// longer than the reader waits, and YAML does not tell.
				t.Logf("%d entries of 100", len(told.entries))
				told = h.next()
			}
			if told.err != nil || len(told.entries) != 100 {
				t.Errorf("told %d entries and error %v", len(told.entries), told.err)
			}
		})
	}
}

// TestFileDoubt: what is not whole is told of only when it stays so.
func TestFileDoubt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	put(t, path, listOf("a:1"))
	h := hear(t, watchers["events"](path).heard)
	h.isNext("[a:1]")
	start := time.Now()
	put(t, path, []byte(`[{"targets": ["b:1"]`))
	told := h.next()
	if text := told.String(); !strings.HasSuffix(text, "parsing JSON: the end is missing") || told.at.Sub(start) < fileDoubt {
		t.Errorf("told %s after %v", text, told.at.Sub(start))
	}
	put(t, path, listOf("b:1"))
	h.isNext("[b:1]")
}

// TestFileConfirmed: a list that stays is confirmed at each poll, without being
// read.
func TestFileConfirmed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	put(t, path, listOf("a:1"))
	must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	w := watchers["events"](path)
	w.poll = time.Millisecond
	h := hear(t, w.heard)
	first := h.next()
	for range 100 {
		if told := h.next(); told.err != nil || &told.entries[0] != &first.entries[0] {
			t.Fatalf("told %v, another than %v", told, first)
		}
	}
}

// TestFileConfigMap: a file that is replaced by way of a link to its directory,
// with events alone.
func TestFileConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(n int) {
		t.Helper()
		at := fmt.Sprintf("%s/..v%d", dir, n)
		must(t, os.Mkdir(at, 0o755))
		must(t, os.WriteFile(at+"/servers.json", listOf(fmt.Sprintf("v%d:1", n)), 0o644))
		must(t, os.Symlink(filepath.Base(at), dir+"/..data_tmp"))
		must(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
		if n > 0 {
			must(t, os.RemoveAll(fmt.Sprintf("%s/..v%d", dir, n-1)))
		}
	}
	version(0)
	path := filepath.Join(dir, "servers.json")
	must(t, os.Symlink("..data/servers.json", path))
	h := hear(t, watchers["events"](path).heard)
	for n := range 5 {
		h.until(fmt.Sprintf("[v%d:1]", n))
		version(n + 1)
	}
}

// TestFileDirectory: the directory comes late and is replaced, which the poll
// sees, and then events tell again.
func TestFileDirectory(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "lb", "servers.json")
	w := watchers["events"](path)
	w.poll = 20 * time.Millisecond
	h := hear(t, w.heard)
	h.until("error: ")
	must(t, os.Mkdir(root+"/lb", 0o755))
	put(t, path, listOf("a:1"))
	h.until("[a:1]")
	must(t, os.Rename(root+"/lb", root+"/old"))
	h.until("error: ")
	must(t, os.Mkdir(root+"/lb", 0o755))
	put(t, path, listOf("b:1"))
	h.until("[b:1]")
	must(t, os.RemoveAll(root+"/lb"))
	must(t, os.Mkdir(root+"/lb", 0o755))
	put(t, path, listOf("c:1"))
	h.until("[c:1]")
}

// TestFileBusy: a directory in which much else happens costs looks, not readings,
// and does not put off the news.
func TestFileBusy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "servers.json")
	put(t, path, listOf("a:1"))
	must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	h := hear(t, watchers["events"](path).heard)
	h.isNext("[a:1]")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			os.WriteFile(dir+"/other", nil, 0o644)
			os.Remove(dir + "/other")
			time.Sleep(time.Millisecond) // the pace of the neighbour
		}
	})
	defer wg.Wait()
	defer cancel()
	start := time.Now()
	put(t, path, listOf("b:1"))
	told := h.next()
	if took := told.at.Sub(start); told.String() != "[b:1]" || took > fileHaste/2 {
		t.Errorf("told %v after %v", told, took)
	}
}

// TestFileSpeed: from the rename to the news of a change of one in a thousand.
func TestFileSpeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	targets := make([]string, 1000)
	for i := range targets {
		targets[i] = fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1)
	}
	put(t, path, listOf(targets...))
	told := make(chan time.Time, 100)
	o := New((&journal{}).logger(), t.TempDir(), func() { told <- time.Now() })
	defer o.Close()
	o.Set(map[string]Source{"web": File{path}})
	<-told
	var took []time.Duration
	for i := range 20 {
		targets[500] = fmt.Sprintf("10.1.0.%d:80", i+1)
		data := listOf(targets...)
		must(t, os.WriteFile(path+".new", data, 0o644))
		start := time.Now()
		must(t, os.Rename(path+".new", path))
		select {
		case at := <-told:
			took = append(took, at.Sub(start))
		case <-time.After(patience):
			t.Fatal("the change was not told")
		}
	}
	quick(t, took, 50*time.Millisecond)
}

// quick fails unless the fastest is within twice the bound: the machine has other
// things to do, and the race detector takes its time. The log has the median,
// which is what the bound is meant for.
func quick(t *testing.T, took []time.Duration, bound time.Duration) {
	t.Helper()
	slices.Sort(took)
	t.Logf("fastest %v, median %v, slowest %v", took[0], took[len(took)/2], took[len(took)-1])
	if took[0] > 2*bound {
		t.Errorf("the fastest of %d took %v, want %v", len(took), took[0], bound)
	}
}
