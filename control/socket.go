package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sun_path with its final zero, unix(7).
const maxSocketPath = 107

// socketMode lets the owner and the group speak to the daemon and nobody else.
const socketMode fs.FileMode = 0o660

// socket is a listening unix socket and the file it is bound to.
type socket struct {
	path     string
	listener *net.UnixListener
	file     fs.FileInfo // of the path, right after it was bound
}

// openSocket listens on path. Its errors say what to do.
func openSocket(path, group string, log *slog.Logger) (*socket, error) {
	// An absolute path means the same whatever becomes of the working
	// directory, and never an abstract socket, which has neither mode nor
	// group.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("opening control socket %s: its path has %d bytes and a socket's may have %d: set [control] socket to a shorter one",
			path, len(path), maxSocketPath)
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Two daemons that start at once must not both find a stale socket and
	// remove each other's.
	defer lockDir(filepath.Dir(path))()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	s := &socket{path: path}
	if err := s.bind(); err != nil {
		return nil, err
	}
	s.setGroup(group, log)
	return s, nil
}

// makeDir creates dir where it is missing, open to all to look into: it is the
// socket's own mode that keeps people out.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o755) // whatever the umask says
	}
	if err != nil {
		return fmt.Errorf("creating directory %s for the control socket: %w: create it for the user that runs the daemon (in its systemd unit: RuntimeDirectory=), or set [control] socket to another path",
			dir, cause(err))
	}
	return nil
}

// lockDir keeps other daemons from changing sockets in dir meanwhile. Whoever
// may read the directory can hold the lock, so it is waited for no longer than
// a second and then done without.
func lockDir(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || time.Now().After(deadline) {
			return func() { _ = f.Close() } // which gives the lock back
		}
	}
}

// removeStale removes the socket at path that nobody listens on any more. It
// leaves one that answers, and anything that is no socket.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("opening control socket %s: %w", path, cause(err))
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("opening control socket %s: there is something there that is no socket: remove it, or set [control] socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer conn.Close()
		return fmt.Errorf("another daemon%s is running on control socket %s: stop it, or set [control] socket to another path",
			peerPID(conn), path)
	case errors.Is(err, syscall.EAGAIN): // its backlog is full: so there is one
		return fmt.Errorf("another daemon is running on control socket %s and does not answer: stop it, or set [control] socket to another path", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("asking who listens on control socket %s: %w: remove it if nobody does, or set [control] socket to another path",
			path, cause(err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing control socket %s of a dead process: %w: remove it as root", path, cause(err))
	}
	return nil
}

// peerPID names the process at the other end of conn, where it can be told.
func peerPID(conn net.Conn) string {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ""
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if pid <= 0 { // it lives in a pid namespace that we cannot see
		return ""
	}
	return " (pid " + strconv.Itoa(pid) + ")"
}

// bind listens on s.path.
func (s *socket) bind() error {
	// Linux gives the file the mode of the unbound socket less the umask
	// (unix_bind in net/unix/af_unix.c). So nobody slips in between bind and
	// chmod.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(socketMode)) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", s.path)
	if err == nil {
		s.listener = l.(*net.UnixListener)
		// The path may be another daemon's by the time this one closes.
		s.listener.SetUnlinkOnClose(false)
		if err = os.Chmod(s.path, socketMode); err == nil { // what the umask took
			s.file, err = os.Lstat(s.path)
		}
		if err == nil {
			return nil
		}
		_ = s.listener.Close()
		_ = os.Remove(s.path)
	}
	hint := "set [control] socket to another path"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = fmt.Sprintf("let the user that runs the daemon (uid %d) write to %s, or set [control] socket to another path",
			os.Geteuid(), filepath.Dir(s.path))
	case errors.Is(err, syscall.EROFS):
		hint = filepath.Dir(s.path) + " is read-only; set [control] socket to a path under /run"
	}
	return fmt.Errorf("opening control socket %s: %w: %s", s.path, cause(err), hint)
}

// setGroup gives the socket to group. Where that fails the socket still serves
// root and the daemon's own user, so it is worth a warning and no more.
func (s *socket) setGroup(group string, log *slog.Logger) {
	if group == "" {
		return
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		log.Warn("control socket is for root and the daemon's own user and group: its group does not exist; create it with groupadd --system "+group,
			"socket", s.path, "group", group)
		return
	}
	gid, err := strconv.Atoi(g.Gid)
	if err == nil {
		err = os.Lchown(s.path, -1, gid)
	}
	if err != nil {
		log.Warn("control socket is for root and the daemon's own user and group: its group could not be set; add its user to the group",
			"socket", s.path, "group", group, "err", cause(err))
	}
}

// unlink removes the path where it still is this socket's. It must come before
// the listener is closed.
func (s *socket) unlink() error {
	defer lockDir(filepath.Dir(s.path))()
	now, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(now, s.file) {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing control socket %s: %w", s.path, cause(err))
	}
	return nil
}
