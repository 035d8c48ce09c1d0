package lab

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/lab/load"
)

// TestServer brings a lab up over the protocol and goes through the verbs.
func TestServer(t *testing.T) {
	needMachine(t, "haproxy", "bird", "gobgpd")
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), l, bin) }()

	// do sends a request and returns its standard output and exit status.
	do := func(t *testing.T, req Request, in string, signals <-chan syscall.Signal) (string, int, error) {
		t.Helper()
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		status, err := Do(t.Context(), conn, req, Terminal{In: strings.NewReader(in), Out: &out, Err: &stderr, Signals: signals})
		if stderr.Len() > 0 {
			t.Logf("%s: standard error: %s", req.Verb, stderr.String())
		}
		return out.String(), status, err
	}
	exec := func(argv ...string) Request { return Request{Verb: "exec", Args: argv} }

	if _, _, err := do(t, Request{Verb: "status"}, "", nil); err == nil || err.Error() != "the lab is not up yet" {
		t.Errorf("status before up: %v", err)
	}
	sizes := Sizes{Routers: 2, Reflectors: 2, LB4: 1, LB7: 2, Servers: 1, Users: 4}
	// BIRD's reflectors here, since other tests have the other ones.
	out, _, err := do(t, Request{Verb: "up", Up: &UpRequest{Sizes: sizes, Reflector: BIRD}}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up:\n%s", out)

	t.Run("up again", func(t *testing.T) {
		if _, _, err := do(t, Request{Verb: "up", Up: &UpRequest{Sizes: sizes, Reflector: BIRD}}, "", nil); err == nil {
			t.Error("a second lab came up")
		}
	})
	t.Run("exec", func(t *testing.T) {
		tests := []struct {
			name   string
			req    Request
			in     string
			want   string
			status int
		}{
			{name: "host name", req: exec("LB7-2", "hostname"), want: "LB7-2\n"},
			{name: "input", req: exec("users", "tr", "a-z", "A-Z"), in: "upper\n", want: "UPPER\n"},
			{name: "status", req: exec("users", "sh", "-c", "exit 7"), status: 7},
			{name: "killed", req: exec("users", "sh", "-c", "kill -9 $$"), status: 128 + 9},
			{name: "environment", req: Request{Verb: "exec", Args: []string{"users", "sh", "-c", "echo $TERM"}, Env: []string{"TERM=vt100"}}, want: "vt100\n"},
			{
				name: "terminal",
				req:  Request{Verb: "exec", Args: []string{"users", "sh", "-c", "tty >/dev/null && stty size"}, Terminal: &Size{Rows: 33, Columns: 77}},
				want: "33 77\r\n",
			},
			{name: "own directories", req: exec("LB4-1", "sh", "-c", "touch /etc/lb/mark && ls /etc/lb"), want: "lb4d.toml\nmark\n"},
			{name: "others' directories", req: exec("LB7-1", "ls", "/etc/lb"), want: "lb7d.toml\n"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				out, status, err := do(t, tt.req, tt.in, nil)
				if err != nil || status != tt.status || out != tt.want {
					t.Errorf("%q, status %d, %v; want %q, status %d", out, status, err, tt.want, tt.status)
				}
			})
		}
	})
	t.Run("exec refused", func(t *testing.T) {
		for _, req := range []Request{exec("LB9-1", "true"), exec("users", "no-such-program"), exec()} {
			if _, status, err := do(t, req, "", nil); err == nil || status == 0 {
				t.Errorf("%v: status %d, %v", req.Args, status, err)
			}
		}
	})
	t.Run("signal past unread input", func(t *testing.T) {
		signals := make(chan syscall.Signal, 1)
		time.AfterFunc(300*time.Millisecond, func() { signals <- syscall.SIGTERM })
		begin := time.Now()
		_, status, err := do(t, exec("users", "sleep", "60"), strings.Repeat("unread", 1<<18), signals)
		if err != nil || status != 128+int(syscall.SIGTERM) || time.Since(begin) > 20*time.Second {
			t.Errorf("status %d, %v, after %v", status, err, time.Since(begin))
		}
	})
	t.Run("processes", func(t *testing.T) {
		state := func(host, name string) ProcessStatus {
			t.Helper()
			out, _, err := do(t, Request{Verb: "status", JSON: true}, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			var st Status
			if err := json.Unmarshal([]byte(out), &st); err != nil {
				t.Fatal(err)
			}
			if len(st.Routes) != sizes.Routers || len(st.Routes["R1"]) != 2*vipCount {
				t.Errorf("routes %v", st.Routes)
			}
			for _, h := range st.Hosts {
				for _, p := range h.Processes {
					if h.Name == host && p.Name == name {
						return p
					}
				}
			}
			t.Fatalf("nothing named %s on %s", name, host)
			return ProcessStatus{}
		}
		before := state("LB7-1", "haproxy")
		if !before.Running || before.PID == 0 {
			t.Errorf("before: %+v", before)
		}
		if _, _, err := do(t, Request{Verb: "stop", Args: []string{"LB7-1", "haproxy"}}, "", nil); err != nil {
			t.Fatal(err)
		}
		if p := state("LB7-1", "haproxy"); p.Running || p.Outcome == "" {
			t.Errorf("stopped: %+v", p)
		}
		if _, _, err := do(t, Request{Verb: "kill", Args: []string{"LB7-1", "haproxy"}, Signal: 9}, "", nil); err == nil {
			t.Error("a program that does not run took a signal")
		}
		for _, verb := range []string{"start", "restart"} {
			if _, _, err := do(t, Request{Verb: verb, Args: []string{"LB7-1", "haproxy"}}, "", nil); err != nil {
				t.Fatal(err)
			}
			p := state("LB7-1", "haproxy")
			if !p.Running || p.PID == before.PID {
				t.Errorf("after %s: %+v", verb, p)
			}
			before = p
		}
		for _, verb := range []string{"stop", "start"} {
			if _, _, err := do(t, Request{Verb: verb, Args: []string{"S1", "origin"}}, "", nil); err != nil {
				t.Fatal(err)
			}
			if p := state("S1", "origin"); p.Running != (verb == "start") {
				t.Errorf("after %s: %+v", verb, p)
			}
		}
	})
	t.Run("status", func(t *testing.T) {
		out, _, err := do(t, Request{Verb: "status"}, "", nil)
		if err != nil || !strings.Contains(out, "LB4-1") || !strings.Contains(out, "2001:db8::c633:6404") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
	t.Run("logs", func(t *testing.T) {
		out, _, err := do(t, Request{Verb: "logs", Args: []string{"LB4-1"}}, "", nil)
		if err != nil || !strings.Contains(out, "== lb4d\n") || !strings.Contains(out, "announced") {
			t.Errorf("%v:\n%s", err, out)
		}
		if _, _, err := do(t, Request{Verb: "logs", Args: []string{"S1", "origin"}}, "", nil); err == nil {
			t.Error("the lab's own server has a log")
		}
	})
	t.Run("load", func(t *testing.T) {
		out, _, err := do(t, Request{Verb: "load", JSON: true, Load: &LoadRequest{Rate: 20, Slow: 2, SlowFor: time.Second, For: 4 * time.Second}}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var r load.Result
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		if r.Kind("quick").Outcomes[load.Completed] < 20 || r.Kind("slow").Outcomes[load.Completed] == 0 {
			t.Errorf("completed: quick %v, slow %v", r.Kind("quick").Outcomes, r.Kind("slow").Outcomes)
		}
	})
	t.Run("load interrupted", func(t *testing.T) {
		signals := make(chan syscall.Signal, 1)
		time.AfterFunc(3*time.Second, func() { signals <- syscall.SIGINT })
		out, status, err := do(t, Request{Verb: "load", Load: &LoadRequest{Rate: 10}}, "", signals)
		if err != nil || status != 0 || !strings.Contains(out, "completed") {
			t.Errorf("status %d, %v:\n%s", status, err, out)
		}
	})

	if _, _, err := do(t, Request{Verb: "down"}, "", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server did not end")
	}
	for _, left := range []string{runDir, "/run/netns/LB4-1"} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left behind", left)
		}
	}
}
