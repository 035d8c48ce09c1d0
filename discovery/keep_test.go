package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestart: the list is there before the source is.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log journal
		first := New(log.logger(), dir, func() {})
		source := newScript("a")
		first.Set(map[string]Source{"web/../x y": source})
		source.tells([]Entry{
			{Name: "a", Target: "192.0.2.1:80", Labels: map[string]string{
				LabelWeight: "7", LabelZone: "z", LabelGroup: "g", LabelExclude: "true"}},
			{Name: "b", Target: "[2001:db8::1]:80"},
			{Name: "refused", Target: "x"},
		}, nil)
		first.Close()
		was, _ := first.State("web/../x y")
		want(t, "files", []string{"discovery-web%2F..%2Fx%20y.json"}, listed(t, dir))

		time.Sleep(time.Hour)
		second := New(log.logger(), dir, func() {})
		second.Set(map[string]Source{"web/../x y": newScript("b")})
		defer second.Close()
		state, _ := second.State("web/../x y")
		want(t, "servers", was.List.Servers, state.List.Servers)
		want(t, "source", "script a", state.List.Source)
		want(t, "restored", true, state.Restored)
		want(t, "age", time.Hour, state.Age())

		// A clock that was set back makes no list of the future.
		third := New(log.logger(), dir, func() {})
		defer third.Close()
		must(t, save(keptPath(dir, "later"), List{At: time.Now().Add(time.Hour)}))
		third.Set(map[string]Source{"later": newScript("c")})
		state, _ = third.State("later")
		want(t, "age in the future", 0, state.Age())
		want(t, "restored though empty", true, state.Restored)
	})
}

// TestSaving: one write for a change, one a minute for confirmations, and again
// until it is done.
func TestSaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log journal
		o := New(log.logger(), filepath.Join(dir, "state"), func() {})
		defer o.Close()
		source := newScript("a")
		o.Set(map[string]Source{"web": source})
		source.lists("192.0.2.1:80")
		synctest.Wait()
		state, _ := o.State("web")
		if !errors.Is(state.SaveErr, fs.ErrNotExist) {
			t.Errorf("error without a directory: %v", state.SaveErr)
		}
		log.take()
		time.Sleep(3 * saveAgain)
		synctest.Wait()
		want(t, "log of later attempts", "", log.take())
		must(t, os.Mkdir(dir+"/state", 0o755))
		time.Sleep(saveAgain)
		synctest.Wait()
		want(t, "log of the first success", "level=INFO msg=\"server list is kept again\" backend=web\n", log.take())
		state, _ = o.State("web")
		want(t, "error", nil, state.SaveErr)

		at := func() time.Time {
			list, err := restore(keptPath(dir+"/state", "web"))
			must(t, err)
			return list.At
		}
		start := at()
		var writes []time.Duration
		for range 200 {
			source.lists("192.0.2.1:80")
			synctest.Wait()
			if d := at().Sub(start); !slices.Contains(writes, d) {
				writes = append(writes, d)
			}
			time.Sleep(time.Second)
		}
		if len(writes) != 4 { // the one there was, 40 s old, and one a minute
			t.Errorf("confirmed for 200 s, written at %v", writes)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	const good = `{"version":1,"source":"s","at":"2026-01-02T03:04:05Z","servers":[{"name":"a","address":"192.0.2.1","port":80}]}`
	list, err := parseKept([]byte(good))
	must(t, err)
	want(t, "servers", []Server{server("a", "192.0.2.1:80")}, list.Servers)
	for _, tt := range []struct{ name, text, err string }{
		{"empty", "", "unexpected end of JSON input"},
		{"cut", good[:90], "unexpected end of JSON input"},
		{"of another version", strings.Replace(good, `:1,`, `:2,`, 1), "version is 2, and 1 is known"},
		{"without a time", strings.Replace(good, `"at"`, `"on"`, 1), "at is missing"},
		{"with an odd name", strings.Replace(good, `"a"`, `"a b"`, 1), `"a b": the name has " " in it, and may have letters, digits and . _ : -`},
		{"with port 0", strings.Replace(good, `80`, `0`, 1), `a: the port 0 is not between 1 and 65535`},
		{"with a negative weight", strings.Replace(good, `"port"`, `"weight":-1,"port"`, 1), `a: the weight -1 is not a whole number from 0 to 256`},
		{"too long", fmt.Sprintf(`{"version":1,"at":"2026-01-02T03:04:05Z","servers":[{}%s]}`, strings.Repeat(",{}", MaxServers)),
			"the list has 4097 entries or more, and 4096 is the most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseKept([]byte(tt.text))
			if err == nil || err.Error() != tt.err {
				t.Errorf("got error %v, want %s", err, tt.err)
			}
		})
	}

	dir := t.TempDir()
	path := keptPath(dir, "web")
	must(t, os.WriteFile(path, []byte(good[:50]), 0o644))
	var log journal
	o := New(log.logger(), dir, func() {})
	defer o.Close()
	o.Set(map[string]Source{"web": newScript("a")})
	state, _ := o.State("web")
	want(t, "state", State{Source: "script a"}, state)
	if got := log.take(); !strings.Contains(got, "no server list to begin with") {
		t.Errorf("log is %q", got)
	}
}

// FuzzKept: whatever is in the state directory, what comes of it can be given to
// HAProxy, and is what is written again.
func FuzzKept(f *testing.F) {
	f.Add([]byte(`{"version":1,"source":"s","at":"2026-01-02T03:04:05Z","servers":[{"name":"a","address":"192.0.2.1","port":80,"weight":3,"zone":"z","group":"g","excluded":true}]}`))
	f.Add([]byte(`{"version":1,"at":"2026-01-02T03:04:05Z","servers":[{"address":"::1%eth0","port":80}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseKept(data)
		if err != nil {
			return
		}
		for _, s := range list.Servers {
			requireFit(t, s)
		}
		path := filepath.Join(t.TempDir(), "list")
		must(t, save(path, list))
		again, err := restore(path)
		must(t, err)
		want(t, "servers", list.Servers, again.Servers)
	})
}

// TestReadRegular: nothing at the path makes the daemon wait or fill up.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/big", nil, 0o644))
	must(t, os.Truncate(dir+"/big", 1<<40)) // sparse
	must(t, os.WriteFile(dir+"/full", bytes.Repeat([]byte("x"), MaxBytes), 0o644))
	must(t, syscall.Mkfifo(dir+"/pipe", 0o644))
	for path, want := range map[string]string{
		dir + "/big":    dir + "/big has 1099511627776 bytes, and 16777216 is the most",
		dir + "/full":   "",
		dir + "/pipe":   dir + "/pipe is no regular file",
		dir:             dir + " is no regular file",
		dir + "/none":   "stat " + dir + "/none: no such file or directory",
		"/dev/zero":     "/dev/zero is no regular file",
		dir + "/full/x": "stat " + dir + "/full/x: not a directory",
	} {
		data, err := readRegular(path)
		if got := fmt.Sprint(err); err != nil && got != want || err == nil && want != "" {
			t.Errorf("%s: got %d bytes and error %v, want %q", path, len(data), err, want)
		}
	}
	if _, err := readBounded(bytes.NewReader(make([]byte, MaxBytes+1))); err == nil {
		t.Error("one byte too many was read")
	}
}

func listed(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
