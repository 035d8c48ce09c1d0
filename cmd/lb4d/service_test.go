package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager's end of sd_notify(3).
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return &manager{t, conn}
}

// hears waits for a message with the given line and returns when it came.
func (m *manager) hears(line string) time.Time {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var heard []string
	for {
		buf := make([]byte, 4096)
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v; heard %q", line, err, heard)
		}
		message := string(buf[:n])
		for l := range strings.Lines(message) {
			if strings.HasPrefix(strings.TrimSpace(l), line) {
				return time.Now()
			}
		}
		heard = append(heard, message)
	}
}

// TestService runs lb4d as the unit does: as a user of its own, with two
// capabilities, a watchdog and a socket to tell its state.
func TestService(t *testing.T) {
	inMachine(t)
	if err := exec.Command("modprobe", "-a", "ip_vs", "ip_vs_mh", "dummy").Run(); err != nil {
		t.Fatalf("loading modules: %v", err)
	}
	// Two members that take their time for the first answer.
	answering := time.Now().Add(time.Second)
	for _, addr := range []string{"127.0.0.2:80", "127.0.0.3:80"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Until(answering))
		})}
		go server.Serve(l)
		defer server.Close()
	}

	dir, path := write(t, `members = ["192.0.2.139", "192.0.2.140"]`, `members = ["127.0.0.2", "127.0.0.3"]`)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		`as = 65000`, "as = 65000\ndrain_time = \"0s\"\nlisten_port = 179",
		// No tunnel leads to this host itself.
		`port = 80`, "port = 80\ntimeout = \"1s\"\nvia = \"direct\"",
	).Replace(string(text))
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	const uid, gid = 4321, 4321
	for d := dir; d != "/" && d != "/run" && d != "/tmp"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}

	m := newManager(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-config", path)
	cmd.Env = append(os.Environ(), asProgram+"=1", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=2000000")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uid, Gid: gid},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE},
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("log of lb4d:\n%s", log.String())
		}
	}()

	m.hears("STATUS=starting: waiting for the first answer")
	m.hears("STATUS=2 of 2 VIPs announced to 0 of 1 peers, 2 of 2 members up")
	if at := m.hears("READY=1"); at.Before(answering) {
		t.Errorf("READY %v before the first answer could come", answering.Sub(at))
	}
	m.hears("WATCHDOG=1")
	table, err := os.ReadFile("/proc/net/ip_vs")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(table), "Tunnel  1"); n != 4 {
		t.Errorf("%d destinations in the kernel, want 4:\n%s", n, table)
	}
	if got, err := os.ReadFile("/proc/sys/net/ipv4/vs/sloppy_tcp"); err != nil || strings.TrimSpace(string(got)) != "1" {
		t.Errorf("sloppy_tcp is %q, %v; want 1", got, err)
	}

	_ = cmd.Process.Signal(syscall.SIGHUP)
	m.hears("RELOADING=1")
	m.hears("READY=1")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after TERM: %v; want exit status 0", err)
	}
	if left, err := os.ReadFile("/proc/net/ip_vs"); err != nil || string(left) != string(table) {
		t.Errorf("after TERM the table is\n%s\nwant it as it was:\n%s", left, table)
	}
}
