package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/control"
)

// asProgram in the environment makes the test binary be lb7d, so that a test
// can start it as systemd does.
const asProgram = "LB7D_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

const leastConfig = `
state_dir = "DIR/state"
[control]
socket = "DIR/lb7d.sock"
[haproxy]
socket = "DIR/haproxy.sock"
[backend.web]
slots = 10
source = { file = "DIR/servers.json" }
`

// write writes the least configuration with one change into a new directory.
func write(t *testing.T, old, new string) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	if !strings.Contains(leastConfig, old) {
		t.Fatalf("the configuration has no %q", old)
	}
	text := strings.ReplaceAll(strings.Replace(leastConfig, old, new, 1), "DIR", dir)
	path = filepath.Join(dir, "lb7d.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

// TestCheck: each fault of a file is told with its file, line and key, and
// nothing else is.
func TestCheck(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown key", "slots = 10", "slots = 10\nslot = 1", ":9: backend.web.slot: "},
		{"wrong type", "slots = 10", `slots = "x"`, ":8: backend.web.slots: "},
		{"not of lb7d", "slots = 10", "slots = 10\n[bgp]\nas = 65000", ":9: bgp: there is no such key"},
		{"no TOML", "slots = 10", "slots =", ":8: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path := write(t, tt.old, tt.new)
			var stdout, stderr bytes.Buffer
			code := run([]string{"-check", "-config", path}, &stdout, &stderr)
			if code != 1 || stdout.Len() > 0 {
				t.Errorf("exit %d, stdout %q; want 1 and nothing", code, stdout.String())
			}
			if !strings.Contains(stderr.String(), path+tt.want) {
				t.Errorf("stderr\n%s\nwant %q", stderr.String(), tt.want)
			}
		})
	}
	t.Run("each fault has a line", func(t *testing.T) {
		_, path := write(t, "slots = 10", "slots = 0\nweight = 257\nmax_shrink = \"half\"")
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-check", "-config", path}, &stdout, &stderr); code != 1 || strings.Count(stderr.String(), path+":") != 3 {
			t.Errorf("exit %d, stderr\n%s\nwant 1 and three faults", code, stderr.String())
		}
	})
	t.Run("no file", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		path := filepath.Join(t.TempDir(), "none.toml")
		if code := run([]string{"-check", "-config", path}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), path) {
			t.Errorf("exit %d, stderr %q; want 1 and the path", code, stderr.String())
		}
	})
	t.Run("no fault", func(t *testing.T) {
		dir, path := write(t, "slots = 10", "slots = 10")
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-check", "-config", path}, &stdout, &stderr); code != 0 || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("exit %d, output %q %q; want 0 and none", code, stdout.String(), stderr.String())
		}
		if files, _ := os.ReadDir(dir); len(files) != 1 {
			t.Errorf("a check left %v", files)
		}
	})
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-version"}, &stdout, &stderr); code != 0 || stdout.String() != "lb7d devel\n" || stderr.Len() > 0 {
		t.Errorf("exit %d, %q %q", code, stdout.String(), stderr.String())
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-nonsense", "not defined: -nonsense"},
		{"-check extra", `unexpected argument "extra"`},
		{"-log-level loud", `-log-level "loud"`},
		{"-file /etc/lb/agent-check", "-file belongs to -agent-check"},
		{"-listen :5555", "-listen belongs to -agent-check"},
		{"-agent-check -config lb7d.toml", "-agent-check runs without a configuration"},
		{"-agent-check -check", "-agent-check runs without a configuration"},
		{"-agent-check -teardown", "-agent-check runs without a configuration"},
		{"-check -teardown", "-check and -teardown are two things"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(tt.args), &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), tt.want) || stdout.Len() > 0 {
				t.Errorf("exit %d, stdout %q, stderr %q; want 2 and %q", code, stdout.String(), stderr.String(), tt.want)
			}
		})
	}
	t.Run("-help", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-help"}, &stdout, &stderr); code != 0 || !strings.Contains(stderr.String(), "-agent-check") {
			t.Errorf("exit %d, stderr %q; want 0 and the flags", code, stderr.String())
		}
	})
}

// TestTeardownFaults: what keeps -teardown from its work is told, and nothing
// is removed.
func TestTeardownFaults(t *testing.T) {
	t.Run("a configuration with a fault", func(t *testing.T) {
		_, path := write(t, "slots = 10", "slots = 0")
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-teardown", "-config", path}, &stdout, &stderr); code != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), path+":8: backend.web.slots: ") {
			t.Errorf("exit %d, %q %q", code, stdout.String(), stderr.String())
		}
	})
	t.Run("what was noted cannot be read", func(t *testing.T) {
		dir, path := write(t, "slots = 10", "slots = 10")
		if err := os.Mkdir(filepath.Join(dir, "state"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "state", "tunnel.json"), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := run([]string{"-teardown", "-config", path}, &stdout, &stderr)
		if code != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "remove it to begin anew") {
			t.Errorf("exit %d, %q %q", code, stdout.String(), stderr.String())
		}
	})
	// With [tunnel] or without it in the file: what runs is what counts.
	t.Run("lb7d keeps the tunnels", func(t *testing.T) {
		dir, path := write(t, "slots = 10", "slots = 10")
		s, err := control.Listen(control.Options{Socket: filepath.Join(dir, "lb7d.sock"), Log: slog.New(slog.DiscardHandler), LB7: &control.LB7Requests{}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.PublishLB7(&control.LB7Status{Program: "lb7d", State: "running", Tunnel: &control.Tunnel{}})
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-teardown", "-config", path}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "lb7d: lb7d runs and would make the tunnels anew") {
			t.Errorf("exit %d, %q %q", code, stdout.String(), stderr.String())
		}
	})
}

// program is lb7d as a process of its own.
func program(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

// ask asks the agent check at an address, once it answers.
func ask(t *testing.T, at string) string {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("tcp", at); err != nil {
			continue
		}
		answer, err := io.ReadAll(c)
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	t.Fatalf("no agent check at %s: %v", at, err)
	return ""
}

// freeAddress is an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestAgentCheckAlone: on a server, without a configuration, the file is
// answered from; HUP changes nothing, and TERM ends it well.
func TestAgentCheckAlone(t *testing.T) {
	file, at := filepath.Join(t.TempDir(), "agent-check"), freeAddress(t)
	cmd, out := program(t, "-agent-check", "-file", file, "-listen", at)
	if got := ask(t, at); got != "up ready\n" {
		t.Errorf("without a file the answer is %q", got)
	}
	if err := os.WriteFile(file, []byte("drain # new disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, at); got != "up drain # new disk\n" {
		t.Errorf("with a file the answer is %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, at); got != "up drain # new disk\n" {
		t.Errorf("after HUP the answer is %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after TERM: %v\n%s", err, out)
	}
}

// TestAgentCheckFaults: what keeps it from answering is one line that says so.
func TestAgentCheckFaults(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct{ listen, want string }{
		{"5555", `-listen "5555" is no address and port`},
		{"127.0.0.1:0", `-listen "127.0.0.1:0" is no address and port`},
		{"127.0.0.1:70000", "is no address and port"},
		{"", `-listen "" is no address and port`},
		{l.Addr().String(), l.Addr().String()},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			cmd, out := program(t, "-agent-check", "-file", filepath.Join(t.TempDir(), "agent-check"), "-listen", tt.listen)
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			_ = cmd.Wait()
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			last := lines[len(lines)-1]
			if cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(last, "lb7d: ") || !strings.Contains(last, tt.want) {
				t.Errorf("exit %d, output\n%s\nwant exit 1 and %q", cmd.ProcessState.ExitCode(), out, tt.want)
			}
		})
	}
}

// TestListenAddresses: a port alone is every address of both families.
func TestListenAddresses(t *testing.T) {
	all, err := listenAddresses(":5555, 127.0.0.1:5556,[::1]:5557")
	var got []string
	for _, a := range all {
		got = append(got, a.String())
	}
	if want := "0.0.0.0:5555 [::]:5555 127.0.0.1:5556 [::1]:5557"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
