package discovery

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script is a source that tells what the test says.
type script struct {
	name string
	told chan telling
}

type telling struct {
	entries []Entry
	err     error
	done    chan struct{}
}

func (s *script) String() string { return "script " + s.name }

func (s *script) Run(ctx context.Context, tell func([]Entry, error)) {
	for {
		select {
		case <-ctx.Done():
			// A source that is told to end may still have an answer.
			tell(nil, ctx.Err())
			return
		case t := <-s.told:
			tell(t.entries, t.err)
			close(t.done)
		}
	}
}

func newScript(name string) *script { return &script{name, make(chan telling)} }

// lists tells a list of the targets, and returns when it has been heard.
func (s *script) lists(targets ...string) {
	entries := make([]Entry, 0, len(targets))
	for _, target := range targets {
		entries = append(entries, Entry{Target: target})
	}
	s.tells(entries, nil)
}

func (s *script) tells(entries []Entry, err error) {
	t := telling{entries, err, make(chan struct{})}
	s.told <- t
	<-t.done
}

// journal is a log without times.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// take is what was logged since it was last called.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.text.Reset()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// names are those of the servers that are known of a back end.
func names(t *testing.T, o *Observer, backend string) []string {
	t.Helper()
	state, known := o.State(backend)
	if !known {
		t.Fatalf("back end %s is not known", backend)
	}
	var names []string
	for _, s := range state.List.Servers {
		names = append(names, s.Name)
	}
	return names
}

func want[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestLastGood: failures and foreign answers leave the list; the log has the
// changes alone.
func TestLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		var changes atomic.Int64
		o := New(log.logger(), t.TempDir(), func() { changes.Add(1) })
		defer o.Close()
		source := newScript("a")
		o.Set(map[string]Source{"web": source})
		state, _ := o.State("web")
		want(t, "state before the first answer", State{Source: "script a"}, state)

		step := func(what, logged string, changed int64) {
			t.Helper()
			want(t, what+": log", logged, log.take())
			want(t, what+": changes", changed, changes.Swap(0))
		}

		source.tells(nil, errors.New("no route"))
		step("failing at first", "level=WARN msg=\"source fails, and no server list is known\" backend=web source=\"script a\" err=\"no route\"\n", 1)
		source.tells(nil, errors.New("no route"))
		step("failing again", "", 0)

		time.Sleep(time.Minute)
		source.lists("192.0.2.1:80", "192.0.2.2:80")
		step("first list", "level=INFO msg=\"source answers again\" backend=web source=\"script a\" after=1m0s\n"+
			"level=INFO msg=\"server list\" backend=web source=\"script a\" servers=2 added=2 removed=0 altered=0\n", 1)

		time.Sleep(time.Minute)
		source.lists("192.0.2.2:80", "192.0.2.1:80")
		step("same list", "", 0)
		state, _ = o.State("web")
		want(t, "age after a confirmation", 0, state.Age())

		time.Sleep(time.Hour)
		source.tells(nil, errors.New("timeout"))
		step("failing", "level=WARN msg=\"source fails, the last server list stays\" backend=web source=\"script a\" err=timeout servers=2 age=1h0m0s\n", 1)
		time.Sleep(time.Hour)
		source.tells(make([]Entry, MaxServers+1), nil)
		step("too many", "", 0)
		state, _ = o.State("web")
		want(t, "error", "the list has 4097 entries or more, and 4096 is the most", state.Err.Error())
		want(t, "failing for", time.Hour, time.Since(state.FailingSince))
		want(t, "age", 2*time.Hour, state.Age())
		want(t, "answers, failures", [2]uint64{2, 4}, [2]uint64{state.Answers, state.Failures})
		want(t, "servers", []string{"192.0.2.1:80", "192.0.2.2:80"}, names(t, o, "web"))

		source.tells([]Entry{
			{Name: "x", Target: "192.0.2.1:80"},
			{Target: "192.0.2.2:80", Labels: map[string]string{LabelExclude: "true"}},
			{Name: "a b", Target: "192.0.2.3:80"},
		}, nil)
		step("another list", "level=INFO msg=\"source answers again\" backend=web source=\"script a\" after=1h0m0s\n"+
			"level=INFO msg=\"server list\" backend=web source=\"script a\" servers=2 added=1 removed=1 altered=1\n"+
			"level=WARN msg=\"entries refused\" backend=web source=\"script a\" refused=1 first=\"\\\"a b\\\"\" reason=\"the name has \\\" \\\" in it, and may have letters, digits and . _ : -\"\n", 1)

		source.lists()
		step("an empty list", "level=INFO msg=\"server list\" backend=web source=\"script a\" servers=0 added=0 removed=2 altered=0\n", 1)
		source.tells(nil, errors.New("bad\nword\x1b[31m"+strings.Repeat("x", 1000)))
		state, _ = o.State("web")
		if text := state.Err.Error(); len(text) > 410 || !strings.HasPrefix(text, "bad word?[31mxxx") {
			t.Errorf("error is shown as %q", text)
		}
	})
}

// TestSet: what stays equal goes on, what changes keeps its list.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		o := New(log.logger(), "", func() {})
		defer o.Close()
		a, b := newScript("a"), newScript("b")
		o.Set(map[string]Source{"web": a, "api": b})
		a.lists("192.0.2.1:80")
		b.lists("192.0.2.2:80")

		// A source is its configuration.
		o.Set(map[string]Source{"web": &script{"a", a.told}, "api": b})
		a.lists("192.0.2.1:80", "192.0.2.3:80")
		state, _ := o.State("web")
		want(t, "answers of a source that stayed", uint64(2), state.Answers)

		// The former source answers no more, the list stays.
		next := newScript("next")
		o.Set(map[string]Source{"web": next})
		synctest.Wait()
		if _, known := o.State("api"); known {
			t.Error("a back end that was taken out is still known")
		}
		state, _ = o.State("web")
		want(t, "source", "script next", state.Source)
		want(t, "source of the list", "script a", state.List.Source)
		want(t, "restored", true, state.Restored)
		want(t, "answers", uint64(0), state.Answers)
		next.tells(nil, errors.New("not yet"))
		want(t, "servers", []string{"192.0.2.1:80", "192.0.2.3:80"}, names(t, o, "web"))
		next.lists("192.0.2.9:80")
		state, _ = o.State("web")
		want(t, "restored after an answer", false, state.Restored)
		want(t, "source of the list after an answer", "script next", state.List.Source)

		// One that comes back has what it had.
		o.Set(map[string]Source{"web": next, "api": b})
		want(t, "servers of one that came back", []string{"192.0.2.2:80"}, names(t, o, "api"))
		o.Close()
		o.Set(nil)
		want(t, "servers after Close", []string{"192.0.2.9:80"}, names(t, o, "web"))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
