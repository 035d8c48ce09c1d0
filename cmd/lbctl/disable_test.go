package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/maintenance"
)

// disabler serves disable and enable, as an lb4d whose user may write the files
// or may not.
func disabler(t *testing.T, may bool) (socket, file string, asked *[]control.DisableRequest) {
	t.Helper()
	dir := t.TempDir()
	socket, file = filepath.Join(dir, "lb4d.sock"), filepath.Join(dir, "disable")
	asked = &[]control.DisableRequest{}
	refusal := &control.Refusal{Status: 403, Reason: "writing maintenance file: permission denied: lb4d's user lb4d may not write it; run this as root"}
	s, err := control.Listen(control.Options{Socket: socket, Log: slog.New(slog.DiscardHandler),
		Disable: func(_ context.Context, r control.DisableRequest) (*control.DisableAnswer, error) {
			*asked = append(*asked, r)
			if !may {
				return nil, refusal
			}
			return &control.DisableAnswer{Host: "lb4-1", Path: "/etc/lb/disable", Disabled: true, Reason: r.Reason,
				Was: true, WasReason: "old disk", VIPs: []control.VIP{{Address: "198.51.100.1", State: "draining"}}}, nil
		},
		Enable: func(_ context.Context, r control.EnableRequest) (*control.DisableAnswer, error) {
			if !may {
				return nil, refusal
			}
			return &control.DisableAnswer{Host: "lb4-1", Path: "/etc/lb/disable", Was: true, WasReason: "old disk",
				Warnings: []string{"services are disabled by files of their own: mail"}}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	// The status follows the file, as lb4d's does.
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, err := os.Lstat(file)
			s.Publish(&control.Status{Host: "lb4-1", Maintenance: control.Maintenance{Path: file, Present: err == nil, Reason: "as lb4d read it"}})
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return socket, file, asked
}

// TestDisable: what is asked of lb4d, and what is told of its answer.
func TestDisable(t *testing.T) {
	socket, _, asked := disabler(t, true)
	for _, tt := range []struct {
		args   []string
		exit   int
		stdout string
		stderr string
	}{
		{[]string{"disable", "-r", "new disk", "--for", "30m"}, 0, "/etc/lb/disable is there on lb4-1: new disk; it was there before: old disk\n", ""},
		{[]string{"disable", "www"}, 0, "198.51.100.1  draining", ""},
		{[]string{"disable", "-for", "10ms"}, 1, "", "--for 10ms is too short: write 1s or more"},
		{[]string{"disable", "-for", "soon"}, 2, "", `invalid argument "soon"`},
		{[]string{"disable", "www", "mail"}, 2, "", `"mail" is one argument too many: write lbctl disable [SERVICE]`},
		{[]string{"enable"}, 0, "/etc/lb/disable is gone on lb4-1: old disk\n", "lbctl: warning: services are disabled by files of their own: mail\n"},
		{[]string{"enable", "-o", "json"}, 0, `"was_reason": "old disk"`, ""},
	} {
		var stdout, stderr bytes.Buffer
		exit := run(t.Context(), append(tt.args, "-socket", socket), &stdout, &stderr)
		if exit != tt.exit || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("lbctl %q: exit status %d, stdout %q, stderr %q", tt.args, exit, stdout.String(), stderr.String())
		}
	}
	if got := *asked; len(got) != 2 || got[0].Reason != "new disk" || got[0].Seconds != 1800 || got[0].By == "" || got[1].Service != "www" {
		t.Errorf("asked for %+v", got)
	}
}

// TestDisableByHand: what lb4d's user may not, whoever runs lbctl may.
func TestDisableByHand(t *testing.T) {
	socket, file, _ := disabler(t, false)
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"disable", "-r", "new disk", "-for", "1h", "-socket", socket}, &stdout, &stderr); exit != 0 {
		t.Fatal(exit, stderr.String())
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "new disk\nuntil: ") || !strings.Contains(stdout.String(), file+" is there on lb4-1: as lb4d read it") {
		t.Errorf("file %q, %v; stdout %q", text, err, stdout.String())
	}
	stdout.Reset()
	if exit := run(t.Context(), []string{"enable", "-socket", socket}, &stdout, &stderr); exit != 0 || !strings.Contains(stdout.String(), file+" is gone on lb4-1") {
		t.Errorf("exit status %d, stdout %q, stderr %q", exit, stdout.String(), stderr.String())
	}
	if removed, _ := maintenance.Remove(file); removed {
		t.Error("the file was still there")
	}
	// Neither may: lb4d's words say what to do.
	if err := os.Mkdir(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if exit := run(t.Context(), []string{"disable", "-socket", socket}, &stdout, &stderr); exit != 1 || !strings.Contains(stderr.String(), "run this as root") {
		t.Errorf("exit status %d, stderr %q", exit, stderr.String())
	}
}
