package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
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

// serveBehindTunnel makes the two members of the least configuration, in a
// network namespace of their own, where the handler answers on the VIPs.
func serveBehindTunnel(t *testing.T, handler http.Handler) {
	t.Helper()
	ip := func(command string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
	if err := exec.Command("modprobe", "-a", "ipip", "veth").Run(); err != nil {
		t.Fatalf("loading modules: %v", err)
	}
	ip("netns add lb7s")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "lb7s").Run() })
	for _, command := range []string{
		"link add uplink mtu 1600 type veth peer name eth0 mtu 1600 netns lb7s", "addr add 192.0.2.1/24 dev uplink", "link set uplink up",
		"-n lb7s addr add 192.0.2.139/24 dev eth0", "-n lb7s addr add 192.0.2.140/24 dev eth0", "-n lb7s link set eth0 up",
		"-n lb7s addr add 198.51.100.1/32 dev lo", "-n lb7s addr add 198.51.100.2/32 dev lo", "-n lb7s link set lo up",
		"-n lb7s link set tunl0 up",
		"netns exec lb7s sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0",
	} {
		ip(command)
	}
	l, err := listenIn("lb7s")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

// listenIn listens in a network namespace. The thread comes back from there: it
// may be the process's first, by which /proc/net is found.
func listenIn(name string) (net.Listener, error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	ns, err := netns.GetFromName(name)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", ":80")
	if err := netns.Set(home); err != nil {
		return nil, err // on a thread that ends with the test
	}
	runtime.UnlockOSThread()
	return l, err
}

// parted parts /proc/net/ip_vs into what users' flows meet and the services of
// marks.
func parted(table string) (forwarding, marks string) {
	part := &forwarding
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, " ") {
			part = &forwarding
			if strings.HasPrefix(line, "FWM ") {
				part = &marks
			}
		}
		*part += line
	}
	return forwarding, marks
}

func acceptLocal(t *testing.T) string {
	t.Helper()
	value, err := os.ReadFile("/proc/sys/net/ipv4/conf/uplink/accept_local")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
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
	serveBehindTunnel(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Until(answering))
	}))

	dir, path := write(t, `as = 65000`, `as = 65000`)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		`as = 65000`, "as = 65000\ndrain_time = \"0s\"\nlisten_port = 179",
		`port = 80`, "port = 80\ntimeout = \"1s\"",
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
	var log strings.Builder
	run := func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-config", path)
		cmd.Env = append(os.Environ(), asProgram+"=1", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=2000000")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: uid, Gid: gid},
			AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE},
		}
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := run()
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
	forwarding, marks := parted(string(table))
	if n, m := strings.Count(forwarding, "Tunnel  1"), strings.Count(marks, "Tunnel  1"); n != 4 || m != 2 {
		t.Errorf("%d destinations of users and %d of checks in the kernel, want 4 and 2:\n%s", n, m, table)
	}
	if got := acceptLocal(t); got != "1" {
		t.Errorf("accept_local is %s, want 1", got)
	}
	if got, err := os.ReadFile("/proc/sys/net/ipv4/vs/sloppy_tcp"); err != nil || strings.TrimSpace(string(got)) != "1" {
		t.Errorf("sloppy_tcp is %q, %v; want 1", got, err)
	}

	_ = cmd.Process.Signal(syscall.SIGHUP)
	m.hears("RELOADING=1")
	m.hears("READY=1")

	// USR2: it is gone at once, and all is as it was for the next one.
	_ = cmd.Process.Signal(syscall.SIGUSR2)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after USR2: %v; want exit status 0", err)
	}
	if left, err := os.ReadFile("/proc/net/ip_vs"); err != nil || string(left) != string(table) {
		t.Errorf("after USR2 the table is\n%s\nwant it as it was:\n%s", left, table)
	}
	if strings.Contains(log.String(), "stopping") {
		t.Error("USR2 was taken for a stop")
	}
	cmd = run()
	m.hears("READY=1")
	if want := `msg="routes kept through the restart" families=ipv4 reason="the kernel still forwards 2 of the 2 VIPs that were announced"`; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %s", want)
	}

	_ = cmd.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after TERM: %v; want exit status 0", err)
	}
	if left, err := os.ReadFile("/proc/net/ip_vs"); err != nil || string(left) != forwarding {
		t.Errorf("after TERM the table is\n%s\nwant it as it was, without that of the checks:\n%s", left, forwarding)
	}
	if got := acceptLocal(t); got != "0" {
		t.Errorf("after TERM accept_local is %s, want it as it was found", got)
	}
}
