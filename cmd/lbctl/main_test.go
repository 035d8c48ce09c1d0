package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

// serve has an lb4d's control server tell st and names its socket.
func serve(t *testing.T, st *control.Status) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := control.Listen(control.Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Publish(st)
	return path
}

func TestRun(t *testing.T) {
	path := serve(t, worst())
	missing := filepath.Join(t.TempDir(), "none")
	noDaemon := "lbctl: no lb4d answers on " + missing + ": is it running? (systemctl status lb4d)\n"
	for _, tt := range []struct {
		args           []string
		exit           int
		stdout, stderr string // parts; empty: nothing at all
	}{
		// Every VIP is withdrawn or on its way, and yet lb4d did answer.
		{[]string{"status", "-socket", path}, 0, "lb4d 1.2.3 on lb4-1", ""},
		{[]string{"status", "--socket", path}, 0, "lb4d 1.2.3 on lb4-1", ""},
		{[]string{"-socket=" + path, "status"}, 0, "RELOAD REFUSED", ""},
		{[]string{"--socket=" + path, "status", "-o", "text"}, 0, "MAINTENANCE", ""},
		{[]string{"status", "-socket", path, "-output=json"}, 0, `  "version": "1.2.3",`, ""},
		{[]string{"status", "-socket", path, "-ojson"}, 0, `"errors": [`, ""},
		{[]string{"version", "-socket", path}, 0, "lb4d 1.2.3 (pid 4711 on lb4-1)\n", ""},
		{[]string{"version", "-socket", missing}, 0, "no lb4d answers on", ""},
		{[]string{"-help"}, 0, "lbctl asks a running lb4d", ""},
		{[]string{"completion", "bash"}, 0, "bash completion", ""},
		{[]string{"__complete", "-socket", path, "status", "-o", ""}, 0, "json\n", "Completion ended"},

		{[]string{"status", "-socket", missing}, 1, "", noDaemon},
		{[]string{"status", "-socket", missing, "-o", "json"}, 1, "", noDaemon},
		{[]string{"status", "-socket", "/etc/passwd"}, 1, "", "no lb4d answers on /etc/passwd"},

		{[]string{"status", "-o", "xml"}, 2, "", "must be text or json"},
		{[]string{"status", "-sockets", path}, 2, "", "unknown shorthand flag"},
		{[]string{"status", "--bogus"}, 2, "", "unknown flag: --bogus"},
		{[]string{"status", "www"}, 2, "", `"www" is one argument too many: write lbctl status`},
		{[]string{"status", "-socket"}, 2, "", "flag needs an argument"},
		{[]string{"statsu"}, 2, "", "Did you mean this?"},
	} {
		var stdout, stderr bytes.Buffer
		exit := run(t.Context(), tt.args, &stdout, &stderr)
		if exit != tt.exit {
			t.Errorf("lbctl %q: exit status %d, want %d", tt.args, exit, tt.exit)
		}
		for name, s := range map[string]struct{ got, want string }{
			"stdout": {stdout.String(), tt.stdout}, "stderr": {stderr.String(), tt.stderr},
		} {
			if s.want == "" && s.got != "" || !strings.Contains(s.got, s.want) {
				t.Errorf("lbctl %q: %s is %q, want %q in it", tt.args, name, s.got, s.want)
			}
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	exit := run(ctx, []string{"status", "-socket", serve(t, base())}, &stdout, &stderr)
	if exit != 1 || stdout.Len() > 0 || stderr.String() != "lbctl: interrupted\n" {
		t.Errorf("exit status %d, stdout %q, stderr %q", exit, stdout.String(), stderr.String())
	}
}

func TestJSONIsTheStatus(t *testing.T) {
	want := worst()
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"status", "-socket", serve(t, want), "-o", "json"}, &stdout, &stderr); exit != 0 {
		t.Fatal(exit, stderr.String())
	}
	if strings.ContainsAny(stdout.String(), "\x1b\u202e") {
		t.Errorf("a control character in %q", stdout.String())
	}
	got := &control.Status{}
	if err := json.Unmarshal(stdout.Bytes(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestDoubleDash(t *testing.T) {
	root := statusCommand(nil, nil, nil)
	root.PersistentFlags().String("socket", "", "")
	for in, want := range map[string]string{
		"-socket x -w":       "--socket x -w",
		"-socket=x -o json":  "--socket=x -o json",
		"-watch -help -h":    "--watch --help -h",
		"-ojson --watch":     "-ojson --watch",
		"-o -- -socket":      "-o -- -socket",
		"- -sock --socket x": "- -sock --socket x",
	} {
		if got := strings.Join(doubleDash(root, strings.Fields(in)), " "); got != want {
			t.Errorf("doubleDash(%q) = %q, want %q", in, got, want)
		}
	}
}

// until collects what is written to it and calls done once it has n lines.
type until struct {
	mu   sync.Mutex
	b    bytes.Buffer
	n    int
	done func()
}

func (u *until) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n, err := u.b.Write(p)
	if bytes.Count(u.b.Bytes(), []byte("\n")) >= u.n {
		u.done()
	}
	return n, err
}

func TestWatchJSONLines(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := &until{n: 2, done: cancel}
	var stderr bytes.Buffer
	if exit := run(ctx, []string{"status", "-w", "-o", "json", "-socket", serve(t, base())}, out, &stderr); exit != 0 || stderr.Len() > 0 {
		t.Fatalf("exit status %d, stderr %q", exit, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(out.b.String()), "\n")
	if len(lines) != 2 {
		t.Errorf("got %d lines, want 2:\n%s", len(lines), out.b.String())
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
}

// TestWatchOutlastsTheDaemon begins before lb4d does.
func TestWatchOutlastsTheDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	stderr := &until{n: 1}
	stderr.done = func() {
		stderr.n = 1000
		s, err := control.Listen(control.Options{Socket: path})
		if err != nil {
			t.Error(err)
			cancel()
			return
		}
		t.Cleanup(func() { s.Close() })
		s.Publish(base())
	}
	out := &until{n: 5, done: cancel}
	if exit := run(ctx, []string{"status", "-w", "-socket", path}, out, stderr); exit != 0 {
		t.Fatalf("exit status %d, stderr %q", exit, stderr.b.String())
	}
	if !strings.Contains(stderr.b.String(), "no lb4d answers") || !strings.Contains(out.b.String(), "lb4d 1.2.3 on lb4-1") {
		t.Errorf("stderr %q, stdout %q", stderr.b.String(), out.b.String())
	}
}

// TestTerminal runs on a real one: a narrow pseudo-terminal.
func TestTerminal(t *testing.T) {
	path := serve(t, worst())
	for name, tt := range map[string]struct {
		env    map[string]string
		colour bool
	}{
		"colours":  {map[string]string{"NO_COLOR": "", "TERM": "xterm"}, true},
		"NO_COLOR": {map[string]string{"NO_COLOR": "1", "TERM": "xterm"}, false},
		"dumb":     {map[string]string{"NO_COLOR": "", "TERM": "dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			far, near, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			if err := pty.Setsize(near, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
				t.Fatal(err)
			}
			shown := make(chan string)
			go func() {
				b, _ := io.ReadAll(far) // ends with EIO once near is closed
				shown <- string(b)
			}()
			exit := run(t.Context(), []string{"status", "-socket", path}, near, os.Stderr)
			near.Close()
			got := <-shown
			if exit != 0 || strings.Contains(got, "\x1b[") != tt.colour {
				t.Errorf("exit status %d, colours want %v in %q", exit, tt.colour, got)
			}
			for line := range strings.SplitSeq(got, "\r\n") {
				if !tt.colour && len([]rune(line)) > 60 {
					t.Errorf("more than 60 columns: %q", line)
				}
			}
		})
	}
}

// TestVersionFlag: lbctl -version says what lbctl version does, as lb4d -version
// and most programs do.
func TestVersionFlag(t *testing.T) {
	path := serve(t, base())
	var outputs []string
	for _, args := range [][]string{{"version", "-socket", path}, {"-version", "-socket", path}, {"--version", "-socket", path}} {
		var stdout, stderr bytes.Buffer
		if exit := run(t.Context(), args, &stdout, &stderr); exit != 0 || stderr.Len() > 0 {
			t.Fatalf("lbctl %q: exit status %d, stderr %q", args, exit, stderr.String())
		}
		outputs = append(outputs, stdout.String())
	}
	if outputs[0] != outputs[1] || outputs[0] != outputs[2] || !strings.Contains(outputs[0], "lbctl devel") {
		t.Errorf("got %q", outputs)
	}
}
