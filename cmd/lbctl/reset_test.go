package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"lb4d/control"
)

// TestReset: what is asked of lb4d, and what is told of its answer.
func TestReset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	var asked []string
	s, err := control.Listen(control.Options{Socket: path, Log: slog.New(slog.DiscardHandler),
		Reset: func(_ context.Context, r control.ResetRequest) (*control.ResetAnswer, error) {
			asked = append(asked, r.VIP)
			if r.VIP == "198.51.100.9" {
				return nil, &control.Refusal{Status: 404, Reason: "198.51.100.9 is no VIP of this host: see lbctl status"}
			}
			return &control.ResetAnswer{Host: "lb4-1", Reset: 1, VIPs: []control.VIP{{Address: "198.51.100.1", State: "announced", Reason: "www forwards to 2 of 2 members"}}}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct {
		args   []string
		exit   int
		stdout string
		stderr string
	}{
		{[]string{"198.51.100.1"}, 0, "the failures of 1 VIP are forgotten on lb4-1", ""},
		{[]string{"-all"}, 0, "198.51.100.1  announced", ""},
		{[]string{"198.51.100.1", "-o", "json"}, 0, `"reset": 1`, ""},
		{[]string{"198.51.100.9"}, 1, "", "198.51.100.9 is no VIP of this host"},
		{nil, 2, "", "name one VIP, or all of them with --all"},
		{[]string{"198.51.100.1", "--all"}, 2, "", "name one VIP, or all of them with --all"},
	} {
		var stdout, stderr bytes.Buffer
		exit := run(t.Context(), append([]string{"reset", "-socket", path}, tt.args...), &stdout, &stderr)
		if exit != tt.exit || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("lbctl reset %q: exit status %d, stdout %q, stderr %q", tt.args, exit, stdout.String(), stderr.String())
		}
	}
	if got := strings.Join(asked, " "); got != "198.51.100.1  198.51.100.1 198.51.100.9" {
		t.Errorf("asked for %q", got)
	}
}
