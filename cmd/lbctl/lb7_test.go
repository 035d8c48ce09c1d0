package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

// lb7Base is an LB7 host on which all is well.
func lb7Base() *control.LB7Status {
	server := func(slot int, id, address, group string) control.SlotServer {
		return control.SlotServer{
			Slot: slot, ID: id, Address: address, Group: group, WantedState: "ready", State: "ready", Running: true,
			WantedWeight: 10, FullWeight: 10, Weight: 10, Since: at.Add(-76 * time.Hour), PassedAt: at.Add(-76 * time.Hour),
		}
	}
	return &control.LB7Status{
		Program: "lb7d", Version: "1.2.3", Host: "lb7-1", PID: 815,
		Started: at.Add(-76*time.Hour - 10*time.Second), Updated: at.Add(-300 * time.Millisecond),
		State: "running", Summary: "3 servers in 3 back ends",
		Config:     control.ConfigFile{Path: "/etc/lb/lb7d.toml", Loaded: at.Add(-192 * time.Second)},
		Tunnel:     &control.Tunnel{VIPs: []string{"198.51.100.1", "2001:db8::c633:6401"}, Modes: []string{"ipip", "ip6ip6"}, Devices: []string{"lb-ipip-c000028b"}, MTU: 1500},
		AgentCheck: &control.AgentCheck{File: "/etc/lb/agent-check", Answer: "up ready", Source: "default", Serving: true, Since: at.Add(-76 * time.Hour)},
		HAProxy:    &control.HAProxy{Socket: "/run/haproxy/admin.sock", Running: true, PID: 4711, Version: "2.6.12-1+deb12u2", Since: at.Add(-76 * time.Hour), Sessions: 1204},
		Records: []control.Record{{
			Name: "web", Store: "etcd", Version: 42, Holder: "lb7-1:/run/lb/lb7d.sock", Held: true,
			Source: "file /etc/lb/servers.json", Listed: 3, At: at.Add(-4 * time.Second), Slots: 10, Used: 3,
		}},
		Backends: []control.Backend{
			{Name: "web", Record: "web", Takes: "all", Applied: at.Add(-300 * time.Millisecond), Servers: []control.SlotServer{
				server(1, "web1", "192.0.2.1:80", "eu"), server(2, "web2", "192.0.2.2:80", "eu"), server(3, "web3", "[2001:db8::3]:80", "us"),
			}},
			{Name: "web-ap", Record: "web", Takes: "groups ap"},
			{Name: "web-us", Record: "web", Takes: "groups us", Applied: at.Add(-300 * time.Millisecond), Servers: []control.SlotServer{
				server(3, "web3", "[2001:db8::3]:80", "us"),
			}},
		},
	}
}

// lb7Worst is an LB7 host on which hardly anything is well.
func lb7Worst() *control.LB7Status {
	st := lb7Base()
	st.Summary = "drained; 3 servers in 3 back ends; 3 errors"
	st.Config.Error, st.Config.ErrorAt = "/etc/lb/lb7d.toml:8: backend.web.slots: 0 is out of range; write 1 to 4096", at.Add(-61*time.Second)
	st.AgentCheck.Answer, st.AgentCheck.Serving, st.AgentCheck.Since = "up drain # new disk, \x1b[2J", false, at.Add(-4*time.Minute)
	st.HAProxy = &control.HAProxy{Socket: "/run/haproxy/admin.sock", Error: "connection refused"}
	st.Errors = []string{
		"asking HAProxy: connecting to /run/haproxy/admin.sock: connection refused",
		"web: a list of 1 server is held back, since 2 that have slots are not in it; lbctl confirm web believes it",
		"web: the source fails for 3m: reading /etc/lb/servers.json: \x1b[31mno such file\x1b[0m",
	}
	r := &st.Records[0]
	r.Held, r.Holder, r.At = false, "lb7-2:/run/lb/lb7d.sock", time.Time{}
	web := st.Backends[0].Servers
	web[0].Running = false
	web[1].WantedState, web[1].HeldByAgent, web[1].State = "ready", "drain", "drain"
	web[2].PassedAt, web[2].State, web[2].WantedWeight, web[2].Weight = time.Time{}, "maint", 1, 1
	st.Backends[0].Servers = append(web, control.SlotServer{
		Slot: 4, ID: "web4", Address: "192.0.2.4:80", WantedState: "drain", State: "drain", Running: true,
		WantedWeight: 4, FullWeight: 10, Weight: 4, PassedAt: at.Add(-time.Minute),
	}, control.SlotServer{Slot: 5, ID: "web5\x1b[2J", Address: "192.0.2.5:80", WantedState: "ready", WantedWeight: 10, FullWeight: 10})
	return st
}

func TestRenderLB7Golden(t *testing.T) {
	stuck := lb7Base()
	stuck.Updated = at.Add(-5 * time.Minute)
	agentAlone := &control.LB7Status{
		Program: "lb7d", Version: "1.2.3", Host: "s1", PID: 4, Started: at.Add(-time.Hour), Updated: at, State: "running",
		Summary: "answers agent checks", Config: lb7Base().Config, AgentCheck: lb7Base().AgentCheck,
	}
	for name, tt := range map[string]struct {
		status *control.LB7Status
		term   terminal
	}{
		"lb7-well":         {lb7Base(), terminal{}},
		"lb7-well-colour":  {lb7Base(), terminal{is: true, width: 160, colour: true}},
		"lb7-worst":        {lb7Worst(), terminal{}},
		"lb7-worst-80":     {lb7Worst(), terminal{is: true, width: 80}},
		"lb7-worst-colour": {lb7Worst(), terminal{is: true, width: 80, colour: true}},
		"lb7-stuck":        {stuck, terminal{}},
		"lb7-agent-alone":  {agentAlone, terminal{}},
		"lb7-zero":         {&control.LB7Status{}, terminal{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := renderLB7(tt.status, at, tt.term)
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("differs from %s, which -update writes anew (-want +got):\n%s", golden, diff)
			}
			if strings.Contains(got, "\x1b[2J") || strings.Contains(got, "\x1b[31mno such file") {
				t.Error("what a server said moves the cursor")
			}
		})
	}
}

// TestWhichDaemon: lbctl status shows the daemon that there is, and lb4d's
// status says where there is another.
func TestWhichDaemon(t *testing.T) {
	dir := t.TempDir()
	lb4, lb7 := filepath.Join(dir, "lb4d.sock"), filepath.Join(dir, "lb7d.sock")
	for _, path := range []string{lb4, lb7} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := filepath.Join(dir, "none")
	for _, tt := range []struct {
		lb4, lb7 string
		want     daemons
		hint     bool
	}{
		{none, none, daemons{}, false},
		{lb4, none, daemons{lb4: true}, false},
		{none, lb7, daemons{lb7: true}, false},
		{lb4, lb7, daemons{true, true}, true},
	} {
		got := daemonsAt(tt.lb4, tt.lb7)
		if got != tt.want || (got.hint() != "") != tt.hint {
			t.Errorf("at %s and %s: %+v, hint %q", tt.lb4, tt.lb7, got, got.hint())
		}
	}
}

// lb7Host is an lb7d that is asked to drain its host, and whose sessions end
// one by one.
type lb7Host struct {
	mu       sync.Mutex
	sessions int // before the next answer
	err      string
	asked    []string
}

func (h *lb7Host) answer(verb string) (*control.HostDrainAnswer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, verb)
	a := &control.HostDrainAnswer{Host: "lb7-1", File: "/etc/lb/agent-check", Changed: true, Answer: "up drain # new disk", Sessions: h.sessions}
	switch {
	case h.err != "":
		a.Sessions, a.SessionsError = -1, h.err
	case verb == "undrain":
		a.Answer = "up ready"
	case h.sessions > 0:
		h.sessions--
	}
	return a, nil
}

func (h *lb7Host) listen(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb7d.sock")
	s, err := control.Listen(control.Options{Socket: path, Log: slog.New(slog.DiscardHandler), LB7: &control.LB7Requests{
		Drain: func(_ context.Context, r control.HostDrainRequest) (*control.HostDrainAnswer, error) {
			return h.answer("drain " + r.Reason)
		},
		Undrain: func(context.Context, control.HostDrainRequest) (*control.HostDrainAnswer, error) {
			return h.answer("undrain")
		},
		Sessions: func(context.Context, control.SessionsRequest) (*control.HostDrainAnswer, error) {
			return h.answer("sessions")
		},
		Confirm: func(_ context.Context, r control.ConfirmRequest) (*control.ConfirmAnswer, error) {
			if r.Backend != "web" {
				return nil, &control.Refusal{Status: 404, Reason: "there is no [backend." + r.Backend + "] in lb7d.toml"}
			}
			return &control.ConfirmAnswer{Record: "web", HeldBack: control.HeldBack{Size: 1, Missing: 2}}, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.PublishLB7(lb7Base())
	return path
}

// TestLB7Verbs: what lbctl asks of lb7d, and what it tells of the answers.
func TestLB7Verbs(t *testing.T) {
	for _, tt := range []struct {
		name, args     string
		host           *lb7Host
		asked          []string
		exit           int
		stdout, stderr string // parts; empty: nothing at all
	}{
		{name: "drain to the end", args: "drain --reason NEW_DISK", host: &lb7Host{sessions: 2},
			asked:  []string{"drain new disk", "sessions", "sessions"},
			stdout: "lb7-1 is drained: HAProxy is answered \"up drain # new disk\", 0 sessions left\n",
			stderr: "lbctl: 2 sessions left\nlbctl: 1 session left\n"},
		{name: "drain without waiting", args: "drain -timeout 0s", host: &lb7Host{sessions: 2},
			asked: []string{"drain "}, stdout: "2 sessions left\n"},
		{name: "drain that sessions outlast", args: "drain --timeout 1ns", host: &lb7Host{sessions: 2},
			asked: []string{"drain "}, exit: 1, stderr: "lbctl: the drain stands, but not all have ended: 2 sessions left after 1ns\n"},
		{name: "drain without HAProxy", args: "drain", host: &lb7Host{err: "connection refused"},
			asked: []string{"drain "}, exit: 1, stderr: "lbctl: the drain stands, and HAProxy cannot be asked for its sessions: connection refused\n"},
		{name: "force", args: "drain --force", exit: 1, stderr: "--force belongs to the drain of a member"},
		{name: "undrain", args: "undrain", asked: []string{"undrain"},
			stdout: "lb7-1 is no longer drained: HAProxy is answered \"up ready\"\n"},
		{name: "confirm", args: "confirm web", stdout: "the list of 1 server for web is believed; 2 servers lose their slots\n"},
		{name: "confirm nothing", args: "confirm api", exit: 1, stderr: "lbctl: there is no [backend.api] in lb7d.toml\n"},
		{name: "confirm without a name", args: "confirm", exit: 2, stderr: "write lbctl confirm BACKEND"},
		{name: "status", args: "status --lb7", stdout: "lb7d 1.2.3 on lb7-1"},
		{name: "status of what answers", args: "status", stdout: "lb7d 1.2.3 on lb7-1"},
		{name: "status as JSON", args: "status -lb7 -o json", stdout: `"program": "lb7d"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.host == nil {
				tt.host = &lb7Host{}
			}
			path := tt.host.listen(t)
			var stdout, stderr bytes.Buffer
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "NEW_DISK", "new disk")
			}
			exit := run(t.Context(), append(args, "--socket", path), &stdout, &stderr)
			if exit != tt.exit || !told(stdout.String(), tt.stdout) || !told(stderr.String(), tt.stderr) {
				t.Errorf("exit status %d, want %d\nstdout %q, want %q\nstderr %q, want %q", exit, tt.exit, stdout.String(), tt.stdout, stderr.String(), tt.stderr)
			}
			tt.host.mu.Lock()
			defer tt.host.mu.Unlock()
			if diff := cmp.Diff(tt.asked, tt.host.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// told tells whether text has the part; nothing at all where the part is empty.
func told(text, part string) bool {
	if part == "" {
		return text == ""
	}
	return strings.Contains(text, part)
}
