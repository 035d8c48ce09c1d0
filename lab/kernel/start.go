package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// envPrefix begins the variables that machines use among themselves; none of
// them reaches the command, except the one that Listen reads.
const envPrefix = "LAB_KERNEL_"

// envLines, set in process 1's environment, tells it that it is one, and where
// its lines are.
const envLines = envPrefix + "LINES"

const (
	linesTTY  = "tty"  // on the terminals of a guest kernel
	linesFD   = "fd"   // on descriptors from 3 on
	linesKeep = "keep" // with the kernel, which this process only keeps
)

// binary is User-Mode Linux as Debian names it.
const binary = "linux.uml"

// envDir tells process 1 the directory in which the spec is.
const envDir = envPrefix + "DIR"

// spec is what process 1 reads to know what to run, from a file in envDir. It
// removes that directory then, so that nothing is left even where the host side is killed.
type spec struct {
	Command  []string
	Env      []string
	Dir      string
	Hostname string
	Tmpfs    []string
}

const (
	specFile = "spec.json"
	initFile = "init" // a link to this program
)

// start runs the machine's outermost process with the given ends of the lines.
// In both kinds that is this program as process 1 of a PID namespace, so that
// killing it kills all: User-Mode Linux has a host process for each of the
// guest's address spaces, and none of them dies by itself. The kernel cannot be
// that process 1 itself, since a kernel that panics ends by a signal, to which
// such a process is deaf: it would spin for ever.
func (m *Machine) start(o Options, lines []*os.File) (err error) {
	m.dir, err = os.MkdirTemp("", "lab-kernel-")
	if err != nil {
		return fmt.Errorf("making a directory for the machine: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(m.dir)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's own file: %w", err)
	}
	// A kernel's command line is short and knows no quoting: a link stands for
	// a program whose path might have a space.
	if err := os.Symlink(self, filepath.Join(m.dir, initFile)); err != nil {
		return fmt.Errorf("linking process 1: %w", err)
	}
	b, err := json.Marshal(spec{Command: o.Command, Env: o.Env, Dir: o.Dir, Hostname: o.Hostname, Tmpfs: o.Tmpfs})
	if err != nil {
		return fmt.Errorf("encoding what to run: %w", err)
	}
	// The environment may hold secrets.
	if err := os.WriteFile(filepath.Join(m.dir, specFile), b, 0o600); err != nil {
		return fmt.Errorf("writing what to run: %w", err)
	}

	if o.Kind == Namespaces {
		return m.spawn(lines, linesFD, unix.CLONE_NEWPID|unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC, self)
	}
	kernel, err := m.userMode(o.Memory)
	if err != nil {
		return err
	}
	err = m.spawn(lines, linesKeep, unix.CLONE_NEWPID, append([]string{self}, kernel...)...)
	if errors.Is(err, unix.EPERM) {
		// A container without CAP_SYS_ADMIN. To kill one process would leave
		// the others; process 1 powers off when the control line ends.
		err = m.spawn(lines, "", 0, kernel...)
	}
	return err
}

// userMode finds the kernel and makes its command line.
func (m *Machine) userMode(mebibytes int) ([]string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return nil, fmt.Errorf("finding User-Mode Linux (Debian's package user-mode-linux): %w", err)
	}
	if m.memory, err = memoryDir(mebibytes); err != nil {
		return nil, err
	}
	args := []string{
		path, "mem=" + strconv.Itoa(mebibytes) + "M",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw",
		"init=" + filepath.Join(m.dir, initFile), envLines + "=" + linesTTY, envDir + "=" + m.dir,
		"umid=m", "uml_dir=" + m.dir + "/",
		"con=null", "con0=null,fd:1", "ssl=null",
		"quiet",
		// Half of the time to boot: benchmarks for RAID, compression for swap.
		"initcall_blacklist=raid6_select_algo,init_zswap",
	}
	for i := range lineCount {
		args = append(args, fmt.Sprintf("ssl%d=fd:%d", i, 3+i))
	}
	return args, nil
}

// spawn starts a machine's outermost process from a thread that lives as long
// as it does: the parent whose death Pdeathsig tells of is the thread, not the
// process. Where it is this program, mode tells it what to be.
func (m *Machine) spawn(lines []*os.File, mode string, flags uintptr, command ...string) error {
	m.cmd = exec.Command(command[0], command[1:]...)
	m.cmd.Env = []string{
		envLines + "=" + mode, envDir + "=" + m.dir,
		"TMPDIR=" + m.memory, "HOME=" + m.dir, "PATH=" + os.Getenv("PATH"),
	}
	m.cmd.ExtraFiles = lines
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
	m.cmd.WaitDelay = time.Second
	m.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Cloneflags: flags}
	if flags != 0 {
		m.cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	}
	started := make(chan error)
	go func() {
		// Never unlocked: the thread, bound to a processor, dies with the machine.
		runtime.LockOSThread()
		if m.kind == UserMode {
			if lock := reserveProcessor(); lock != nil {
				defer lock.Close()
			}
		}
		err := m.cmd.Start()
		if err == nil {
			limitCore(m.cmd.Process.Pid)
		}
		started <- err
		if err == nil {
			<-m.done
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", m.cmd.Path, err)
	}
	return nil
}

// limitCore keeps a kernel that panics from leaving its memory as a core.
func limitCore(pid int) { _ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }

// destroy kills all of the machine at once.
func (m *Machine) destroy() {
	m.kill.Do(func() {
		_ = unix.Kill(-m.cmd.Process.Pid, unix.SIGKILL)
		_ = m.cmd.Process.Kill()
	})
}
