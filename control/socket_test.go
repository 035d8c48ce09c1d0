package control

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// leave leaves the socket of a dead process at path.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

// nobody is the user that asNobody acts as.
const nobody = 65534

// asNobody calls f with the file system rights of a user who has none. Root
// gives them up for one thread, which ends with f.
func asNobody(f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: so the thread is not used again
		_ = unix.Setfsgid(nobody)
		_ = unix.Setfsuid(nobody) // takes CAP_DAC_OVERRIDE along
		f()
	}()
	<-done
}

// shared is a directory that others may look into, unlike t.TempDir's parent.
func shared(t *testing.T) string {
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(path string) (*socket, error) {
	return openSocket(path, "", slog.New(slog.DiscardHandler))
}

func TestSocketOfDeadProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	leave(t, path)
	s, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestSocketOfLiveProcessStays(t *testing.T) {
	_, path := start(t)
	_, err := open(path)
	want := fmt.Sprintf("another daemon (pid %d) is running on control socket %s", os.Getpid(), path)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("the live one does not answer any more: %v", err)
	}
}

// TestSocketBusyStays has a live process that accepts nobody: its backlog is
// full, as that of a stuck daemon is.
func TestSocketBusyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 4 { // a backlog of 0 takes one or two
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	if _, err := open(path); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want an error that it does not answer", err)
	}
}

// TestSocketRace has daemons start at once where a dead one left its socket.
// One of them serves in the end, and the others say that it does.
func TestSocketRace(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		leave(t, path)
		won := make(chan *socket, 4)
		var wg sync.WaitGroup
		for range cap(won) {
			wg.Go(func() {
				s, err := open(path)
				if err == nil {
					won <- s
				} else if !strings.Contains(err.Error(), "another daemon") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d daemons have the socket, want 1", len(won))
		}
		s := <-won
		if conn, err := net.Dial("unix", path); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		s.listener.Close()
	}
}

func TestSocketFaultsSayWhatToDo(t *testing.T) {
	dir := shared(t)
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, want string }{
		"not writable": {filepath.Join(closed, "s"), "permission denied: let the user that runs the daemon (uid "},
		"no directory": {filepath.Join(closed, "lb", "s"), "creating directory " + closed + "/lb for the control socket: permission denied: create it"},
		"a file":       {"/etc/passwd", "there is something there that is no socket"},
		"a directory":  {dir, "there is something there that is no socket"},
		"below a file": {"/etc/passwd/s", "not a directory"},
		"too long":     {filepath.Join(dir, strings.Repeat("a", 108)), "a socket's may have 107"},
	} {
		var err error
		asNobody(func() { _, err = open(tt.path) })
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", name, err, tt.want)
		}
	}
	if os.Geteuid() != 0 {
		return // only root can have left a socket there
	}
	stale := filepath.Join(closed, "stale")
	leave(t, stale)
	if err := os.Chmod(stale, 0o666); err != nil {
		t.Fatal(err)
	}
	var err error
	asNobody(func() { _, err = open(stale) })
	if want := "of a dead process: permission denied: remove it as root"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("stale and not ours: got %v, want %q", err, want)
	}
}

// TestSocketMode holds whatever umask the daemon was started with.
func TestSocketMode(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o177} {
		dir := filepath.Join(t.TempDir(), "lb")
		old := syscall.Umask(mask)
		s, err := open(filepath.Join(dir, "s"))
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		defer s.listener.Close()
		for path, want := range map[string]fs.FileMode{dir: 0o755, s.path: 0o660} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("umask %03o: %s has mode %v, %v, want %v", mask, path, info.Mode(), err, want)
			}
		}
	}
}

// TestSocketIsBornClosed holds the kernel to what bind relies on: the file has
// the mode of the unbound socket, so it is never open to all.
func TestSocketIsBornClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Fchmod(fd, uint32(socketMode)), unix.Bind(fd, &unix.SockaddrUnix{Name: path})); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("bound with mode %v, %v, want %v", info.Mode(), err, socketMode)
	}
}

func TestSocketGroup(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	s, err := openSocket(filepath.Join(t.TempDir(), "s"), "no-such-group", logger)
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "groupadd --system no-such-group") {
		t.Errorf("missing group: logged %q, want one line that says how to make it", got)
	}
	log.Reset()

	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 1 // any that is not our own
	}
	g, err := user.LookupGroupId(strconv.Itoa(gid))
	if err != nil {
		t.Fatal(err)
	}
	s, err = openSocket(filepath.Join(t.TempDir(), "s"), g.Name, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Gid); got != gid || log.Len() > 0 || info.Mode().Perm() != 0o660 {
		t.Errorf("group %s: got gid %d, mode %v, log %q", g.Name, got, info.Mode(), log.String())
	}
	if want := " or in group " + g.Name; gid != 0 && orInGroup(s.path) != want {
		t.Errorf("orInGroup: got %q, want %q", orInGroup(s.path), want)
	}
}

func TestSocketUnlink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody removes it, and another daemon takes the path.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.unlink(); err != nil {
		t.Error(err)
	}
	first.listener.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the first daemon removed the second one's socket: %v", err)
	}
	if err := second.unlink(); err != nil {
		t.Error(err)
	}
	second.listener.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the second daemon's unlink: got %v, want no file", err)
	}
	if err := second.unlink(); err != nil {
		t.Errorf("unlink of what is gone: %v", err)
	}
}

func TestClientExplains(t *testing.T) {
	dir := shared(t)
	stale, denied := filepath.Join(dir, "stale"), filepath.Join(dir, "denied")
	leave(t, stale)
	leave(t, denied)
	if err := os.Chmod(denied, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "missing"), "no lb4d answers on " + dir + "/missing: is it running? (systemctl status lb4d)"},
		{filepath.Join(dir, "no", "dir"), "no lb4d answers on " + dir + "/no/dir: is it running? (systemctl status lb4d)"},
		{stale, "no lb4d answers on " + stale + ": is it running? (systemctl status lb4d)"},
	} {
		if _, err := NewClient(tt.path).Status(t.Context()); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	if os.Geteuid() != 0 {
		return // the mode keeps nobody out of what is one's own
	}
	var err error
	asNobody(func() { _, err = net.Dial("unix", denied) })
	err = NewClient(denied).explain(err, clientTimeout)
	if want := "no permission to ask lb4d on " + denied + ": you need to be root"; err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}
