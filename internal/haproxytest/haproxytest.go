// Package haproxytest runs a real HAProxy for a test, on loopback and without
// root.
package haproxytest

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// HAProxy is a master with one worker at a time.
type HAProxy struct {
	Dir    string // for the test's files
	Socket string // the stats socket, level admin
	Master string // the master socket
	Config string // the path of the configuration

	files []string
	cmd   *exec.Cmd
	log   *safeBuffer
	ended chan struct{}
}

// Program finds HAProxy, skips the test where there is none, and fails it
// where LAB_REQUIRED=1 says that there has to be one.
func Program(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		// Not in the PATH of ordinary users on Debian.
		path = "/usr/sbin/haproxy"
		_, err = os.Stat(path)
	}
	if err != nil {
		const missing = "no haproxy here; apt-get install haproxy"
		if os.Getenv("LAB_REQUIRED") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return path
}

// Start writes the configuration and runs HAProxy with it until the test
// ends. DIR in it stands for the test's directory. A global section with the
// stats socket is put in front; further files (or directories) are read after
// the configuration.
func Start(t testing.TB, config string, files ...string) *HAProxy {
	t.Helper()
	// A socket's path has to fit 107 bytes, which t.TempDir need not.
	dir, err := os.MkdirTemp("", "haproxy")
	if err != nil {
		t.Fatal(err)
	}
	h := &HAProxy{
		Dir:    dir,
		Socket: filepath.Join(dir, "admin.sock"),
		Master: filepath.Join(dir, "master.sock"),
		Config: filepath.Join(dir, "haproxy.cfg"),
		files:  files,
		log:    &safeBuffer{},
	}
	t.Cleanup(func() {
		h.Stop()
		_ = os.RemoveAll(dir)
		if t.Failed() {
			t.Logf("haproxy says:\n%s", h.log)
		}
	})
	h.Write(t, config)
	h.Run(t)
	return h
}

// Write writes the configuration, for the next start or reload.
func (h *HAProxy) Write(t testing.TB, config string) {
	t.Helper()
	global := "global\n\tstats socket " + h.Socket + " mode 600 level admin expose-fd listeners\n\thard-stop-after 3s\n"
	text := global + strings.ReplaceAll(config, "DIR", h.Dir) + "\n"
	if err := os.WriteFile(h.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Run starts HAProxy and waits until its socket answers.
func (h *HAProxy) Run(t testing.TB) {
	t.Helper()
	args := []string{"-W", "-S", h.Master + ",mode,600", "-f", h.Config}
	for _, f := range h.files {
		args = append(args, "-f", strings.ReplaceAll(f, "DIR", h.Dir))
	}
	h.cmd = exec.Command(Program(t), args...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	// HAProxy goes with the test, however that ends. The kernel sends the
	// signal when the thread that started it ends (prctl(2),
	// PR_SET_PDEATHSIG), so that thread is kept.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd, started, ended := h.cmd, make(chan error, 1), make(chan struct{})
	h.ended = ended
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// The worker answers before the master listens, and the master loses
		// signals until it does.
		if h.PID() != "" && strings.Contains(ask(h.Master, "show proc"), "# workers") {
			return
		}
		select {
		case <-ended:
			t.Fatalf("haproxy did not start:\n%s", h.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("haproxy does not answer:\n%s", h.log)
		}
	}
}

// PID is the worker's process number as its stats socket tells it, or empty.
func (h *HAProxy) PID() string {
	for line := range strings.Lines(ask(h.Socket, "show info")) {
		if pid, ok := strings.CutPrefix(line, "Pid: "); ok {
			return strings.TrimSpace(pid)
		}
	}
	return ""
}

// ask is one question to a socket; the empty answer is that nobody answers.
func ask(socket, question string) string {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(question + "\n"))
	_ = conn.(*net.UnixConn).CloseWrite() // or the master waits for more
	var b bytes.Buffer
	_, _ = b.ReadFrom(conn)
	return b.String()
}

// Reload replaces the worker and waits until the new one answers.
func (h *HAProxy) Reload(t testing.TB) {
	t.Helper()
	old := h.PID()
	if err := h.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if pid := h.PID(); pid != "" && pid != old && strings.Contains(ask(h.Master, "show proc"), "# workers") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("haproxy did not reload:\n%s", h.log)
		}
	}
}

// Stop kills HAProxy, its workers included, and waits for its end.
func (h *HAProxy) Stop() {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
	<-h.ended
}

// FreePort is a TCP port that nothing listened on a moment ago.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// safeBuffer is written by the process and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
