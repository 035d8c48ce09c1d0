package maintenance

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// named are the services whose files count, with their reasons.
func (o *observed) named() string {
	var out []string
	services := o.State().Services
	for _, name := range slices.Sorted(maps.Keys(services)) {
		out = append(out, strings.TrimSpace(name+" "+services[name].Reason))
	}
	return strings.Join(out, ", ")
}

func (o *observed) awaitNamed(want string) {
	o.t.Helper()
	o.await(fmt.Sprintf("services %q, now %q", want, o.named()), func(State) bool { return o.named() == want })
}

// TestServices: their files come and go, each by itself, in a directory that comes
// and goes too, and are seen through events alone and through polling alone.
func TestServices(t *testing.T) {
	for way, with := range map[string]func(path string) senses{
		"by events": func(path string) senses {
			return senses{poll: time.Hour, notify: newNotifier(path), within: newDirectoryNotifier(path + ".d"), examine: look}
		},
		"by polling": func(path string) senses {
			within := deafIn(path + ".d")
			return senses{poll: 20 * time.Millisecond, notify: deaf(path), within: within, examine: look}
		},
	} {
		t.Run(way, func(t *testing.T) {
			path := t.TempDir() + "/disable"
			o := start(t, path, with(path))
			must(t, Write(ServicePath(path, "www"), Note{Reason: "new certificate"}))
			o.awaitNamed("www new certificate")
			write(t, ServicePath(path, "mail"), "")
			o.awaitNamed("mail, www new certificate")
			write(t, ServicePath(path, ".mail.swp"), "")
			must(t, os.Rename(ServicePath(path, "mail"), ServicePath(path, "dns")))
			o.awaitNamed("dns, www new certificate")
			must(t, Write(ServicePath(path, "www"), Note{Reason: "old certificate"}))
			o.awaitNamed("dns, www old certificate")
			must(t, os.RemoveAll(path+".d"))
			o.awaitNamed("")
			write(t, path, "")
			o.awaitPresent("the host's own file")
			must(t, os.Mkdir(path+".d", 0o755))
			write(t, ServicePath(path, "www"), "again")
			o.awaitNamed("www again")
			if s := o.State().Services["www"]; s.Path != path+".d/www" || s.Since.IsZero() {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// TestServicesAtTheStart are known when Watch returns.
func TestServicesAtTheStart(t *testing.T) {
	path := t.TempDir() + "/disable"
	must(t, Write(ServicePath(path, "www"), Note{Reason: "x"}))
	o := patiently(t, path)
	if got := o.named(); got != "www x" {
		t.Errorf("services %q", got)
	}
	// What is no directory holds nobody's file.
	must(t, os.RemoveAll(path+".d"))
	write(t, path+".d", "")
	o.awaitNamed("")
}

// TestServicesUnreadable: what is known stands; where nothing is, each service
// might be meant.
func TestServicesUnreadable(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("disable.d", dir+"/disable.d")) // leads to itself
	o := patiently(t, dir+"/disable")
	if s := o.State(); !s.Blind || s.ServicesErr == nil {
		t.Errorf("state %+v, want it blind", s)
	}
	must(t, os.Remove(dir+"/disable.d"))
	o.await("readable", func(s State) bool { return !s.Blind && s.ServicesErr == nil })
	write2 := func(name string) { must(t, Write(ServicePath(dir+"/disable", name), Note{})) }
	write2("www")
	o.awaitNamed("www")
	must(t, os.Rename(dir+"/disable.d", dir+"/aside"))
	must(t, os.Symlink("disable.d", dir+"/disable.d"))
	s := o.await("unreadable", func(s State) bool { return s.ServicesErr != nil })
	if s.Blind || o.named() != "www" {
		t.Errorf("state %+v, want what was known", s)
	}
}

// TestManyFiles: their number is bounded, and those that are looked at count.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range maxFiles + 1 {
		write(t, fmt.Sprintf("%s/f%d", dir, i), "")
	}
	names, err := list(dir)
	if want := fmt.Sprintf("examining maintenance directory %s: it has more than 4096 files; the others are not looked at", dir); len(names) != maxFiles || message(err) != want {
		t.Errorf("%d names, %v", len(names), err)
	}
}

// TestExpiry: a file whose time is over does not count, is removed and told of
// once; one that cannot be removed does not count either.
func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/disable"
	must(t, Write(path, Note{Reason: "new disk", Until: time.Now().Add(2 * time.Second), By: "zoe"}))
	must(t, Write(ServicePath(path, "www"), Note{Until: time.Now().Add(-time.Hour)}))
	o := patiently(t, path)
	s := o.State()
	if !s.Present || s.By != "zoe" || s.Until.IsZero() || o.named() != "" {
		t.Fatalf("at the start %+v", s)
	}
	o.awaitAbsent("expired")
	for _, path := range []string{path, ServicePath(path, "www")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	until := s.Until.UTC().Format(time.RFC3339)
	if want := "msg=\"maintenance file has expired\" path=/disable reason=\"new disk\" until=" + until + " removed=true"; strings.Count(o.lines(dir), want) != 1 {
		t.Errorf("log\n%swant once\n%s", o.lines(dir), want)
	}
	if strings.Contains(o.lines(dir), "maintenance file removed") {
		t.Errorf("an expiry is told as a removal:\n%s", o.lines(dir))
	}
}

// TestExpiryOfAnotherFile: what somebody has put in its place meanwhile stays.
func TestExpiryOfAnotherFile(t *testing.T) {
	path := t.TempDir() + "/disable"
	must(t, Write(path, Note{Reason: "old", Until: ten}))
	found := look(path)
	must(t, Write(path, Note{Reason: "new"}))
	if removed, err := removeSame(path, found); removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	if diff := cmp.Diff("new", look(path).reason); diff != "" {
		t.Error(diff)
	}
}

// TestReasonWithTheFirstLine: a shell makes the file before it writes to it. The
// line that tells of the file has the reason all the same.
func TestReasonWithTheFirstLine(t *testing.T) {
	dir := t.TempDir()
	o := start(t, dir+"/disable", senses{poll: time.Hour, notify: newNotifier(dir + "/disable"), examine: func(path string) sight {
		found := look(path)
		if found.blank() { // between the two steps of the shell
			_ = os.WriteFile(path, []byte("new disk\n"), 0o644)
		}
		return found
	}})
	write(t, dir+"/disable", "")
	o.awaitReason("new disk")
	const want = "level=INFO msg=\"maintenance file appeared\" path=/disable reason=\"new disk\"\n"
	if diff := cmp.Diff(want, o.lines(dir)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// deafIn is deaf for a directory.
func deafIn(dir string) *notifier {
	n := newDirectoryNotifier(dir)
	n.open = deaf(dir).open
	return n
}

// TestManyFilesAreFewLines: all files count, and the log stays short.
func TestManyFilesAreFewLines(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	d := directory{path: dir, examine: look, log: slog.New(slog.NewTextHandler(&out, nil))}
	now := time.Now()
	d.look(now, false)
	const many = 4 * maxNew
	for i := range many {
		write(t, fmt.Sprintf("%s/s%03d", dir, i), "x")
	}
	d.look(now, false)
	if n := len(d.present()); n != many {
		t.Errorf("%d files count, want %d", n, many)
	}
	must(t, os.RemoveAll(dir))
	d.look(now.Add(time.Second), false)
	if n := len(d.present()); n != 0 {
		t.Errorf("%d files count, want none", n)
	}
	if n := strings.Count(out.String(), "\n"); n != 2*maxNew+1 {
		t.Errorf("%d lines for %d files, want %d", n, many, 2*maxNew+1)
	}
	must(t, os.MkdirAll(dir, 0o755))
	write(t, dir+"/later", "x")
	d.look(now.Add(newEvery+time.Second), false)
	if !strings.Contains(out.String(), "path="+dir+"/later") {
		t.Error("a file of a minute later is not told")
	}
}
