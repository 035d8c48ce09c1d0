package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/lab/kernel"
)

// asProgram in the environment makes the test binary be lb4d, so that a test
// can start it as systemd does.
const asProgram = "LB4D_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	kernel.Init()
	os.Exit(m.Run())
}

const leastConfig = `
state_dir = "DIR/state"
maintenance_file = "DIR/disable"
[control]
socket = "DIR/lb4d.sock"
[bgp]
as = 65000
router_id = "192.0.2.132"
[bgp.peer.rr1]
address = "192.0.2.254"
[pool.lb7]
members = ["192.0.2.139", "192.0.2.140"]
[pool.lb7.check]
http = "/healthcheck"
port = 80
[service.www]
vips = ["198.51.100.1", "198.51.100.2"]
ports = ["80/tcp"]
pool = "lb7"
`

// write writes the least configuration with one change into a new directory.
func write(t *testing.T, old, new string) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	if !strings.Contains(leastConfig, old) {
		t.Fatalf("the configuration has no %q", old)
	}
	text := strings.ReplaceAll(strings.Replace(leastConfig, old, new, 1), "DIR", dir)
	path = filepath.Join(dir, "lb4d.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

// TestCheck: each fault of a file is told with its file, line and key, and
// nothing else is.
func TestCheck(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown key", "as = 65000", "as = 65000\nsa = 1", ":8: bgp.sa: "},
		{"wrong type", "as = 65000", `as = "x"`, ":7: bgp.as: "},
		{"bad address", `"192.0.2.254"`, `"192.0.2.256"`, ":10: bgp.peer.rr1.address: "},
		{"port 0", `"80/tcp"`, `"0/tcp"`, ":18: service.www.ports"},
		{"port 70000", `"80/tcp"`, `"70000/tcp"`, ":18: service.www.ports"},
		{"a VIP in two services on one port", "pool = \"lb7\"\n", "pool = \"lb7\"\n[service.api]\nvips = [\"198.51.100.1\"]\nports = [\"80/tcp\"]\npool = \"lb7\"\n", ":21: service.api.vips"},
		{"a pool that does not exist", `pool = "lb7"`, `pool = "lb8"`, ":19: service.www.pool: "},
		{"an empty pool", `members = ["192.0.2.139", "192.0.2.140"]`, `members = []`, ":12: pool.lb7.members: "},
		{"AS 0", "as = 65000", "as = 0", ":7: bgp.as: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path := write(t, tt.old, tt.new)
			expectFault(t, path, path+tt.want)
		})
	}

	t.Run("a missing file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none.toml")
		expectFault(t, path, path+": ")
	})
	t.Run("a directory", func(t *testing.T) {
		path := t.TempDir()
		expectFault(t, path, path+": ")
	})
	t.Run("a file of 100 MB", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "large.toml")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 100<<20); err != nil {
			t.Fatal(err)
		}
		expectFault(t, path, path+": ")
	})
	t.Run("nothing wrong", func(t *testing.T) {
		_, path := write(t, "as = 65000", "as = 65000")
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-check", "-config", path}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("exit %d, stderr %q; want 0 and nothing", code, stderr.String())
		}
	})
}

func expectFault(t *testing.T, path, want string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run([]string{"-check", "-config", path}, &stdout, &stderr)
	line := strings.TrimSuffix(stderr.String(), "\n")
	if code != 1 || !strings.HasPrefix(line, want) || strings.Contains(line, "\n") {
		t.Errorf("exit %d, stderr\n%s\nwant exit 1 and one line that begins with %q", code, stderr.String(), want)
	}
}

// TestUsage: what is no usage of lb4d exits with 2.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-nonsense"}, {"-check", "extra"}, {"-log-level", "loud"}} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("lb4d %q: exit %d, stderr %q; want 2 and a reason", args, code, stderr.String())
		}
	}
}

// inMachine skips a test outside of a machine made for kernel tests.
func inMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_KERNEL_STREAMS") != "" && os.Geteuid() == 0 {
		return
	}
	if os.Getenv("LAB_REQUIRED") == "1" {
		t.Fatal("not in a machine: go test -exec 'bin/lab test-exec'")
	}
	t.Skip("not in a machine: go test -exec 'bin/lab test-exec'")
}

// start runs lb4d as a program until it exits or a few seconds are over.
func start(t *testing.T, path string, change func(*exec.Cmd)) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-config", path)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if change != nil {
		change(cmd)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("starting lb4d: %v", err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// expectRefusal checks that a start failed, and that the last line says why and
// what to do.
func expectRefusal(t *testing.T, code int, stderr string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if code != 1 || !strings.HasPrefix(last, "lb4d: ") || strings.Contains(stderr, "goroutine ") {
		t.Errorf("exit %d, output\n%s\nwant exit 1 and a line that begins with lb4d:", code, stderr)
	}
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("the last line is\n%s\nwant %q in it", last, w)
		}
	}
}

// TestStartFaults: what keeps lb4d from starting is told in one line that says
// what to do.
func TestStartFaults(t *testing.T) {
	inMachine(t)
	t.Run("no IPVS in the kernel", func(t *testing.T) {
		const helper = "/proc/sys/kernel/modprobe"
		was, err := os.ReadFile(helper)
		if err != nil {
			t.Fatal(err)
		}
		_ = exec.Command("modprobe", "-r", "ip_vs_mh", "ip_vs").Run()
		if _, err := os.Stat("/proc/net/ip_vs"); err == nil {
			t.Fatal("ip_vs cannot be unloaded, so that its absence cannot be tested")
		}
		if err := os.WriteFile(helper, []byte("/bin/false"), 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(helper, was, 0o644)
		_, path := write(t, "as = 65000", "as = 65000")
		code, stderr := start(t, path, nil)
		expectRefusal(t, code, stderr, "IPVS", "modprobe ip_vs")
	})
	if err := exec.Command("modprobe", "-a", "ip_vs", "ip_vs_mh", "dummy").Run(); err != nil {
		t.Fatalf("loading modules: %v", err)
	}
	t.Run("no capability", func(t *testing.T) {
		dir, path := write(t, "as = 65000", "as = 65000")
		for d := dir; d != "/" && d != "/run"; d = filepath.Dir(d) {
			_ = os.Chmod(d, 0o777)
		}
		code, stderr := start(t, path, func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		})
		expectRefusal(t, code, stderr, "CAP_NET_ADMIN")
	})
	t.Run("BGP port taken", func(t *testing.T) {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		_, path := write(t, "as = 65000", "as = 65000\nlisten_port = "+port)
		code, stderr := start(t, path, nil)
		expectRefusal(t, code, stderr, port, "listen_port")
	})
	t.Run("socket path not writable", func(t *testing.T) {
		_, path := write(t, "DIR/lb4d.sock", "/proc/none/lb4d.sock")
		code, stderr := start(t, path, nil)
		expectRefusal(t, code, stderr, "/proc/none", "control")
	})
	t.Run("another lb4d on the socket", func(t *testing.T) {
		dir, path := write(t, "as = 65000", "as = 65000")
		l, err := net.Listen("unix", filepath.Join(dir, "lb4d.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		code, stderr := start(t, path, nil)
		expectRefusal(t, code, stderr, "lb4d.sock")
	})
}
