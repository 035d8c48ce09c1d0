package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/control"
)

// TestDirectory: what is asked of lb7d, and what is told of its answers.
func TestDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb7d.sock")
	s, err := control.Listen(control.Options{Socket: path, Log: slog.New(slog.DiscardHandler), LB7: &control.LB7Requests{
		DirectoryLookup: func(_ context.Context, r control.DirectoryRequest) (*control.DirectoryAnswer, error) {
			a := &control.DirectoryAnswer{Directory: "pods", Host: r.Host}
			switch {
			case r.Directory == "none":
				return nil, &control.Refusal{Status: 404, Reason: "there is no [directory.none] in lb7d.toml; there is pods"}
			case r.Host == "none.example.org":
				a.Error = "the directory knows no such host"
			default:
				a.Backend, a.Source, a.Cached, a.Stale = "pod1", "directory", true, true
				a.Asked, a.Expires = time.Now().Add(-time.Hour), time.Now().Add(-50*time.Minute)
			}
			return a, nil
		},
		DirectoryForget: func(_ context.Context, r control.DirectoryRequest) (*control.DirectoryForgotten, error) {
			a := &control.DirectoryForgotten{Directory: "pods", Host: r.Host, Known: r.Host != "none.example.org"}
			if r.Host == "stuck.example.org" {
				a.Error = "connecting to HAProxy: connection refused"
			}
			return a, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := &control.LB7Status{Program: "lb7d", Host: "lb7-1", State: "running"}
	tell := func(args []string, exit int, stdout, stderr string) {
		t.Helper()
		var o, e bytes.Buffer
		got := run(t.Context(), append([]string{"directory", "-socket", path}, args...), &o, &e)
		if got != exit || !strings.Contains(o.String(), stdout) || !strings.Contains(e.String(), stderr) {
			t.Errorf("lbctl directory %q: exit status %d, stdout %q, stderr %q", args, got, o.String(), e.String())
		}
	}
	s.PublishLB7(st)
	tell([]string{"show"}, 1, "", "lb7d on lb7-1 has no directory")
	st.Directories = []control.Directory{{
		Name: "pods", State: "stale", Problems: []string{"no answer for 12s: no answer within 1s"}, Map: "/etc/haproxy/pods.map",
		Hosts: 1200, Max: 200000, InMap: 1200, Stale: 3, Oldest: time.Now().Add(-11 * time.Minute), AnsweredAt: time.Now().Add(-time.Minute),
		Wrong: "www.example.org is in back end \"x\x1b[2J\", which HAProxy does not have", WrongAt: time.Now(),
		Counters: control.DirectoryCounters{Misses: 1300, Calls: 1250, Seconds: 2.5, Answered: 1200, Unknown: 40, Wrong: 10, Failed: 50},
	}}
	s.PublishLB7(st)
	for _, line := range []string{
		"pods stale; 1200 of at most 200000 hosts, 1200 in HAProxy's map /etc/haproxy/pods.map\n",
		"PROBLEM no answer for 12s: no answer within 1s\n",
		"WRONG ANSWER 0s ago: www.example.org is in back end \"x\\x1b[2J\"",
		"stale           3  the oldest answer is of 11m0s ago\n",
		"calls        1250  the latest 1m0s ago, 2.0 ms on average\n",
		"answers      1200  besides 40 unknown, 10 wrong, 50 failed, 0 not asked for\n",
	} {
		tell([]string{"show"}, 0, line, "")
	}
	tell([]string{"show", "pods", "-o", "json"}, 0, `"stale": 3`, "")
	tell([]string{"show", "hosts"}, 1, "", "lb7d on lb7-1 has no directory hosts; it has pods")
	tell([]string{"lookup", "www.example.org"}, 0, "www.example.org is in pod1: the directory service's answer, 1h0m ago\nSTALE the answer is old since 50m0s ago", "")
	tell([]string{"lookup", "www.example.org", "-o", "json"}, 0, `"backend": "pod1"`, "")
	tell([]string{"lookup", "none.example.org"}, 1, "none.example.org the directory knows no such host", "no back end serves none.example.org")
	tell([]string{"lookup", "www.example.org", "-d", "none"}, 1, "", "there is no [directory.none] in lb7d.toml; there is pods")
	tell([]string{"forget", "www.example.org"}, 0, "www.example.org is forgotten by directory pods", "")
	tell([]string{"forget", "none.example.org"}, 0, "none.example.org was not known to directory pods", "")
	tell([]string{"forget", "stuck.example.org"}, 1, "is forgotten", "HAProxy's map may still have the host: connecting to HAProxy")
	tell([]string{"lookup"}, 2, "", "")
}
