package maintenance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var ten = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// TestParse: what people and lbctl write, and what neither would.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Note
		err        string
	}{
		{"a bare touch", "", Note{}, ""},
		{"a reason", "new disk\n", Note{Reason: "new disk"}, ""},
		{"all of it", "new disk\nuntil: 2026-11-21T10:00:00Z\nby: zoe\n", Note{"new disk", ten, "zoe"}, ""},
		{"by hand", "new disk\r\nBy: zoe\r\nUntil:2026-11-21t11:00:00+01:00", Note{"new disk", ten, "zoe"}, ""},
		{"no reason", "\nuntil: 2026-11-21T10:00:00Z\n", Note{Until: ten}, ""},
		{"an end alone", "until: 2026-11-21T10:00:00Z\n", Note{Until: ten}, ""},
		{"a reason that looks like an end", "until: somebody calls\n", Note{Reason: "until: somebody calls"}, ""},
		{"a reason that looks like a name", "by: and by\n", Note{Reason: "by: and by"}, ""},
		{"other lines", "new disk\n\nsee the ticket\nuntil: 2026-11-21T10:00:00Z\n", Note{Reason: "new disk", Until: ten}, ""},
		{"the first end counts", "x\nuntil: 2026-11-21T10:00:00Z\nuntil: 2027-11-21T10:00:00Z\n", Note{Reason: "x", Until: ten}, ""},
		{"an end that is none", "x\nuntil: tomorrow\n", Note{Reason: "x"},
			`until: "tomorrow" is no time such as 2026-11-21T10:00:00Z, so the file stands until it is removed`},
		{"garbage", "\x00\xff\x1b[31m\nuntil: \xff\n", Note{Reason: "[31m"},
			`until: "" is no time such as 2026-11-21T10:00:00Z, so the file stands until it is removed`},
		{"an end behind what is read", strings.Repeat("x\n", maxRead/2) + "until: 2026-11-21T10:00:00Z\n", Note{Reason: "x"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(tt.text[:min(len(tt.text), maxRead)])
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Errorf("note (-want +got):\n%s", diff)
			}
			if text := message(err); text != tt.err {
				t.Errorf("error %q, want %q", text, tt.err)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzParse: nothing in a file makes the daemon fall, and what is written is
// read back as it was.
func FuzzParse(f *testing.F) {
	f.Add("new disk\nuntil: 2026-11-21T10:00:00Z\nby: zoe\n")
	f.Add("until: 0000-01-01T00:00:00Z\n")
	f.Fuzz(func(t *testing.T, text string) {
		n, _ := parse(text)
		if n.Until.Year() > 9999 || n.Until.Year() < 1 {
			return
		}
		again, err := parse(n.String())
		if err != nil || again.By != n.By || !again.Until.Equal(n.Until) {
			t.Errorf("%+v was written and read as %+v, %v", n, again, err)
		}
	})
}

// TestWriteAndRemove: in one step, readable by all, over what was there.
func TestWriteAndRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb", "disable.d", "www")
	if removed, err := Remove(path); removed || err != nil {
		t.Errorf("removing what is not there: %v, %v", removed, err)
	}
	for _, n := range []Note{{"new disk", ten, "zoe"}, {}, {Reason: "two\nlines"}} {
		if err := Write(path, n); err != nil {
			t.Fatal(err)
		}
		found := look(path)
		if want := cleaned(n.Reason); found.reason != want || !found.until.Equal(n.Until) || found.by != n.By || !found.present {
			t.Errorf("%+v was read as %+v", n, found)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	if removed, err := Remove(path); !removed || err != nil {
		t.Errorf("removing: %v, %v", removed, err)
	}
	must(t, os.MkdirAll(filepath.Join(path, "x"), 0o755))
	want := "removing maintenance file " + path + ": directory not empty"
	if removed, err := Remove(path); removed || message(err) != want {
		t.Errorf("removing a directory: %v, %v; want %s", removed, err, want)
	}
	if err := Write(path, Note{}); err == nil || strings.Contains(err.Error(), ".www") {
		t.Errorf("writing over a directory: %v", err)
	}
}

// TestWriteMisread: a reason that reads like an end is not written. It would
// take the file away at once, or never mind what end was asked for.
func TestWriteMisread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disable")
	for _, reason := range []string{"until: 2020-01-01T00:00:00Z", " Until:2099-01-01T00:00:00+01:00", "until: 2020-01-01T00:00:00Z\nx"} {
		for _, until := range []time.Time{{}, ten} {
			if err := Write(path, Note{Reason: reason, Until: until}); !errors.Is(err, ErrMisread) {
				t.Errorf("%q until %s: error %v, want %v", reason, until, err, ErrMisread)
			}
			if _, err := os.Stat(path); err == nil {
				t.Fatal("it was written")
			}
		}
	}
	if err := Write(path, Note{Reason: "until: somebody calls"}); err != nil {
		t.Error(err)
	}
}
