package kernel

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// envStreams tells the command that descriptor 3 carries its streams, as a
// socket ("fd") or as a terminal ("tty") with descriptor 4 for the credit.
const envStreams = envPrefix + "STREAMS"

// tmpDir is a tmpfs inside, where TMPDIR points: on the host's file system
// each call would be one more system call of the host, and a killed machine
// would leave its files.
const tmpDir = "/run/tmp"

// path is what PATH has at least, since a user's own often lacks sbin.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Init turns this process into process 1 of a machine where it is one, and
// does not return then. Else it does nothing. Any program that calls [Boot]
// must call it before all else, tests in TestMain.
func Init() {
	if os.Getpid() != 1 || os.Getenv(envLines) == "" {
		return
	}
	if os.Getenv(envLines) == linesKeep {
		keep(os.Args[1:])
	}
	// What a terminal or a reader's end would do to an ordinary process must
	// not end this one.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	lines, err := machineLines()
	if err != nil {
		fmt.Fprintln(os.Stderr, "process 1:", err)
		powerOff(1)
	}
	control := lines[lineControl]
	words := bufio.NewReader(control)
	io.WriteString(control, wordReady+"\n")
	status, err := runSpec(words, lines)
	for _, line := range lines[lineStdout:lineControl] {
		drain(line)
	}
	word := fmt.Sprintf("%s %d", wordExit, status)
	if err != nil {
		word = wordFail + " " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	unix.Sync() // Before the host hears of the end: it may look at files at once.
	io.WriteString(control, word+"\n")
	drain(control)
	powerOff(status)
}

// keep runs a guest kernel with all descriptors that this process has, and ends
// with it. That takes along what a kernel that has died leaves running.
func keep(kernel []string) {
	limitCore(0)
	os.Unsetenv(envLines)
	files := make([]uintptr, 3+lineCount)
	for fd := range files {
		files[fd] = uintptr(fd)
	}
	pid, err := syscall.ForkExec(kernel[0], kernel, &syscall.ProcAttr{Env: os.Environ(), Files: files})
	if err != nil {
		fmt.Fprintf(os.Stderr, "starting %s: %v\n", kernel[0], err)
		os.Exit(1)
	}
	// Else the host would never see the lines end.
	for fd := range lineCount {
		unix.Close(3 + fd)
	}
	os.Exit(reap(pid))
}

// Listen returns the listener for what the host opens with [Machine.Dial]. It
// is for the command that Boot was given, and for one caller in it. Accept
// fails with io.EOF when the host is gone.
func Listen() (net.Listener, error) {
	kind, ok := os.LookupEnv(envStreams)
	if !ok {
		return nil, errors.New("listening to the host: this process was not started by a machine")
	}
	os.Unsetenv(envStreams)
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	var streams io.ReadWriteCloser = os.NewFile(3, "streams")
	if kind == linesTTY {
		streams = &creditReader{ReadWriteCloser: streams, credit: os.NewFile(4, "credit")}
	}
	session, err := yamux.Server(streams, sessionConfig())
	if err != nil {
		return nil, fmt.Errorf("listening to the host: %w", err)
	}
	return session, nil
}

// machineLines opens process 1's ends of the lines.
func machineLines() ([]*os.File, error) {
	lines := make([]*os.File, lineCount)
	tty := os.Getenv(envLines) == linesTTY
	if tty {
		// The kernel mounts it after the root only where /dev is empty of it.
		if _, err := os.Stat("/dev/ttyS0"); err != nil {
			if err := unix.Mount("dev", "/dev", "devtmpfs", unix.MS_NOSUID, ""); err != nil {
				return nil, fmt.Errorf("mounting /dev: %w", err)
			}
		}
	}
	for i := range lines {
		if !tty {
			unix.CloseOnExec(3 + i)
			lines[i] = os.NewFile(uintptr(3+i), fmt.Sprintf("line %d", i))
			continue
		}
		f, err := os.OpenFile(fmt.Sprintf("/dev/ttyS%d", i), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, fmt.Errorf("opening line %d: %w", i, err)
		}
		if err := makeRaw(f); err != nil {
			return nil, err
		}
		lines[i] = f
	}
	return lines, nil
}

// runSpec reads what to run, prepares the machine, and runs it to its end.
func runSpec(words *bufio.Reader, lines []*os.File) (int, error) {
	dir := os.Getenv(envDir)
	b, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return -1, fmt.Errorf("reading what to run: %w", err)
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return -1, fmt.Errorf("reading what to run: %w", err)
	}
	os.RemoveAll(dir)
	if err := prepare(&s); err != nil {
		return -1, err
	}
	return runCommand(words, lines, s)
}

// prepare makes the namespaces or the bare kernel a place where programs run.
func prepare(s *spec) error {
	if os.Getenv(envLines) == linesFD {
		// Else each mount below would show on the host.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("making the mounts private: %w", err)
		}
	}
	type mount struct{ kind, at, data string }
	mounts := []mount{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/run", "mode=755"},
	}
	if _, err := os.Stat("/dev/pts/ptmx"); err != nil {
		mounts = append(mounts, mount{"devpts", "/dev/pts", "mode=620,ptmxmode=666"}, mount{"tmpfs", "/dev/shm", "mode=1777"})
	}
	for _, dir := range s.Tmpfs {
		mounts = append(mounts, mount{"tmpfs", dir, "mode=1777"})
	}
	for _, m := range mounts {
		if strings.HasPrefix(m.at, "/dev/") {
			_ = os.Mkdir(m.at, 0o755)
		}
		if err := unix.Mount("lab", m.at, m.kind, unix.MS_NOSUID, m.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.kind, m.at, err)
		}
	}
	for _, dir := range []string{"/run/netns", "/run/lock", tmpDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	}
	if err := os.Chmod(tmpDir, 0o1777); err != nil {
		return fmt.Errorf("opening %s to all: %w", tmpDir, err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("setting the host name to %q: %w", s.Hostname, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("raising lo: %w", err)
	}
	raiseFileLimit()
	s.Env = environment(s.Env)
	return nil
}

// raiseFileLimit makes room for hundreds of clients and as many servers in one
// process. A container may forbid to go past its hard limit: then that has to do.
func raiseFileLimit() {
	limit := unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return
	}
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

// environment is the host's with what differs inside.
func environment(env []string) []string {
	value := path
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, v, _ := strings.Cut(kv, "=")
		if k == "PATH" {
			value = v + ":" + path
		}
		return k == "PATH" || k == "TMPDIR" || strings.HasPrefix(k, envPrefix)
	})
	return append(out, "PATH="+value, "TMPDIR="+tmpDir, envStreams+"="+os.Getenv(envLines))
}

// runCommand starts the command and reaps every process until it has ended.
// os/exec would wait for its own child alone, and leave orphans as zombies.
func runCommand(words *bufio.Reader, lines []*os.File, s spec) (int, error) {
	for _, kv := range s.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			os.Setenv("PATH", v)
		}
	}
	program, err := exec.LookPath(s.Command[0])
	if err != nil {
		return -1, fmt.Errorf("finding the command: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return -1, err
	}
	// Pipes, not the lines themselves: a program should not take its output
	// for a terminal because of how it is carried.
	var ends [2]*os.File
	copied := make(chan struct{}, len(ends))
	for i, line := range lines[lineStdout:lineControl] {
		r, w, err := os.Pipe()
		if err != nil {
			return -1, fmt.Errorf("making a pipe: %w", err)
		}
		ends[i] = w
		go func() {
			_, _ = io.Copy(line, r)
			copied <- struct{}{}
		}()
	}
	pid, err := syscall.ForkExec(program, s.Command, &syscall.ProcAttr{
		Dir:   s.Dir,
		Env:   s.Env,
		Files: []uintptr{null.Fd(), ends[0].Fd(), ends[1].Fd(), lines[lineStreams].Fd(), lines[lineCredit].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	closeAll(ends[:])
	lines[lineStreams].Close()
	lines[lineCredit].Close()
	if err != nil {
		return -1, fmt.Errorf("starting %s in %s: %w", program, s.Dir, err)
	}
	go obey(words, pid)
	status := reap(pid)
	// What the command left running may hold the pipes; it gets no say.
	deadline := time.After(time.Second)
	for range ends {
		select {
		case <-copied:
		case <-deadline:
			return status, nil
		}
	}
	return status, nil
}

// obey follows the control line: term is passed on to the command, the end of
// the line ends the machine.
func obey(words *bufio.Reader, pid int) {
	for {
		word, err := readWord(words)
		if err != nil {
			unix.Sync()
			powerOff(1)
		}
		if word == wordTerm {
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}
}

// reap waits for children until pid is one, and returns its status as a shell
// would: 128 + N where signal N ended it.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR), err == nil && got != pid:
			continue
		case err != nil:
			return -1 // No child is left, so pid was reaped: cannot be.
		case ws.Signaled():
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

// powerOff ends the machine. In a PID namespace the call kills process 1, as
// it powers a kernel off, and all others with it.
func powerOff(status int) {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(status)
}
