package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestParse: what the file says, and the line that HAProxy gets of it.
func TestParse(t *testing.T) {
	for _, tt := range []struct{ content, want, err string }{
		{content: "up", want: "up"},
		{content: "Up\r\n", want: "up"},
		{content: "\ufeffdrain\n", want: "drain"},
		{content: "ready", want: "ready"},
		{content: "drain", want: "drain"},
		{content: "maint", want: "maint"},
		{content: "down", want: "down"},
		{content: "stopped", want: "stopped"},
		{content: "FAIL", want: "fail"},
		{content: "75%", want: "75%"},
		{content: "0%", want: "0%"},
		{content: "007%", want: "7%"},
		{content: "25600%", want: "25600%"},
		{content: "maxconn:100", want: "maxconn:100"},
		{content: "MaxConn:0", want: "maxconn:0"},
		{content: "up ready 50%,maxconn:30\t# all of them", want: "up ready 50% maxconn:30 # all of them"},
		{content: "50%  up", want: "up 50%"},
		{content: "up up", want: "up"},
		{content: "drain#new disk", want: "drain # new disk"},
		{content: "drain # a # b", want: "drain # a # b"},
		{content: "\n\n# by hand\n  down # disk\n# more\n", want: "down # disk"},
		{content: "down # tab\there \x1b[31mred\x00", want: "down # tab here [31mred"},
		{content: "down # " + strings.Repeat("ö", 300), want: "down # " + strings.Repeat("ö", 100)},
		{content: "", err: "empty"},
		{content: " \n\t\n", err: "empty"},
		{content: "# drain", err: "empty"},
		{content: ",,,", err: "empty"},
		{content: "drian", err: `"drian" is none of HAProxy's words: up, down`},
		{content: "failed", err: `"failed"`},
		{content: "drain up down", err: "both up and down"},
		{content: "drain ready", err: "both drain and ready"},
		{content: "10% 20%", err: "both 10% and 20%"},
		{content: "drain\nup", err: "two lines"},
		{content: "%", err: "a weight is a number"},
		{content: "-1%", err: "a weight is a number"},
		{content: "+1%", err: "a weight is a number"},
		{content: "1.5%", err: "a weight is a number"},
		{content: "25601%", err: "a weight is a number from 0 to 25600"},
		{content: "99999999999999999999%", err: "a weight is a number"},
		{content: "maxconn:", err: "maxconn needs a number"},
		{content: "maxconn:-1", err: "maxconn needs a number"},
		{content: "maxconn:2147483648", err: "maxconn needs a number"},
		{content: "up;down", err: `"up;down"`},
		{content: "50", err: `"50"`},
		{content: "\xff\xfe", err: "none of HAProxy's words"},
		{content: strings.Repeat("x", 4000), err: `xxx"... is none`},
	} {
		a, err := Parse([]byte(tt.content))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error %v, want %q in one line", tt.content, err, tt.err)
			}
			continue
		}
		if err != nil || a.String() != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.content, a, err, tt.want)
		}
	}
}

func TestServing(t *testing.T) {
	for content, want := range map[string]bool{
		"up": true, "ready": true, "50%": true, "up ready": true,
		"drain": false, "maint": false, "down": false, "stopped": false, "fail": false, "up drain": false, "ready down": false,
	} {
		if a, err := Parse([]byte(content)); err != nil || a.Serving() != want {
			t.Errorf("%q: serving %t, %v, want %t", content, a.Serving(), err, want)
		}
	}
}

// FuzzParse: whatever the file has, the answer is one short line that is parsed
// as itself, so that HAProxy never sees anything else.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "up", "drain # x", "up ready 50% maxconn:3 # \x00\n", "# c\ndown#\u2028x", "75%,up\r\n", "\xff%", "maxconn:1 maxconn:01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := Parse(content)
		if err != nil {
			if text := err.Error(); strings.ContainsFunc(text, unicode.IsControl) || len(text) > 300 {
				t.Fatalf("error %q", text)
			}
			return
		}
		line := a.String()
		if len(line) > maxReason+64 || !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) || strings.ContainsAny(line, "\u2028\u2029") {
			t.Fatalf("%q: line %q", content, line)
		}
		b, err := Parse([]byte(line))
		if err != nil || b != a {
			t.Fatalf("%q: line %q is parsed as %+v, %v; want %+v", content, line, b, err, a)
		}
	})
}

// TestWrite: what is written is read again, what would not be is refused, and the
// file is readable for the daemon, whoever wrote it.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent-check")
	for _, tt := range []struct{ words, reason, want, err string }{
		{words: "drain", reason: "new disk", want: "drain # new disk\n"},
		{words: "DOWN 50%", want: "down 50%\n"},
		{words: "drain", reason: "  größer # 2 ", want: "drain # größer # 2\n"},
		{words: "drain", reason: "a\nup", err: "line break"},
		{words: "drain", reason: "a\rup", err: "line break"},
		{words: "drain", reason: "a\u2028up", err: "line break"},
		{words: "drain", reason: "\x1b[2J", err: "control character"},
		{words: "drain", reason: "\xff", err: "not valid UTF-8"},
		{words: "drain", reason: strings.Repeat("x", 201), err: "201 bytes"},
		{words: "drain\nup", err: "line break"},
		{words: "drain # x", err: "sharp"},
		{words: "sleep", err: `"sleep" is none of`},
		{words: "", err: "empty"},
	} {
		before, _ := os.ReadFile(path)
		err := Write(path, tt.words, tt.reason)
		got, _ := os.ReadFile(path)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || string(got) != string(before) {
				t.Errorf("%q, %q: %q, %v; want the error %q", tt.words, tt.reason, got, err, tt.err)
			}
			continue
		}
		if err != nil || string(got) != tt.want {
			t.Errorf("%q, %q: %q, %v; want %q", tt.words, tt.reason, got, err, tt.want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if was, err := Remove(path); !was || err != nil {
		t.Errorf("removing: %t, %v", was, err)
	}
	if was, err := Remove(path); was || err != nil {
		t.Errorf("removing again: %t, %v", was, err)
	}
	if was, err := Remove(path + "/x"); was || err != nil {
		t.Errorf("removing where no directory is: %t, %v", was, err)
	}
	if err := Write(filepath.Join(path, "x"), "drain", ""); err == nil {
		t.Error("written where no directory is")
	}
}
