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

// envLines, set in process 1's environment, tells it that it is one, and how
// to find its lines: "tty" or "fd".
const envLines = envPrefix + "LINES"

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
// It is process 1 of a PID namespace in both kinds, so that killing it kills
// all: User-Mode Linux has a host process for each of the guest's address
// spaces, and none of them dies by itself.
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

	flags := uintptr(unix.CLONE_NEWPID)
	path, args, env := self, []string(nil), []string{envLines + "=fd", envDir + "=" + m.dir}
	if o.Kind == Namespaces {
		flags |= unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	} else if path, args, env, err = m.userMode(o.Memory); err != nil {
		return err
	}
	spawn := func(flags uintptr) error {
		m.cmd = exec.Command(path, args...)
		m.cmd.Env = env
		m.cmd.ExtraFiles = lines
		m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
		m.cmd.WaitDelay = time.Second
		m.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL, Cloneflags: flags}
		return m.spawn()
	}
	err = spawn(flags)
	if errors.Is(err, unix.EPERM) && o.Kind == UserMode {
		// A container without CAP_SYS_ADMIN: the process group has to do, and
		// process 1 powers off when the control line ends.
		err = spawn(0)
	}
	return err
}

// userMode finds the kernel and makes its command line and environment.
func (m *Machine) userMode(mebibytes int) (path string, args, env []string, err error) {
	path, err = exec.LookPath(binary)
	if err != nil {
		return "", nil, nil, fmt.Errorf("finding User-Mode Linux (Debian's package user-mode-linux): %w", err)
	}
	memory, err := memoryDir(mebibytes)
	if err != nil {
		return "", nil, nil, err
	}
	args = []string{
		"mem=" + strconv.Itoa(mebibytes) + "M",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw",
		"init=" + filepath.Join(m.dir, initFile), envLines + "=tty", envDir + "=" + m.dir,
		"umid=m", "uml_dir=" + m.dir + "/",
		"con=null", "con0=null,fd:1", "ssl=null",
		"quiet", "panic=-1",
		// Half of the time to boot: benchmarks for RAID, compression for swap.
		"initcall_blacklist=raid6_select_algo,init_zswap",
	}
	for i := range lineCount {
		args = append(args, fmt.Sprintf("ssl%d=fd:%d", i, 3+i))
	}
	env = []string{"TMPDIR=" + memory, "HOME=" + m.dir, "PATH=" + os.Getenv("PATH")}
	return path, args, env, nil
}

// spawn starts the command from a thread that lives as long as it does: the
// parent whose death Pdeathsig tells of is the thread, not the process.
func (m *Machine) spawn() error {
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

// destroy kills all of the machine at once.
func (m *Machine) destroy() {
	m.kill.Do(func() {
		_ = unix.Kill(-m.cmd.Process.Pid, unix.SIGKILL)
		_ = m.cmd.Process.Kill()
	})
}
