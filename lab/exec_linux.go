package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// Stdio connects a command that is run on a host.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal gives the command a terminal, of that size, in place of
	// three streams; Err is not used then.
	Terminal *pty.Winsize
	// Resize carries later sizes of the terminal.
	Resize <-chan pty.Winsize
	// Signals are passed on to the command.
	Signals <-chan syscall.Signal
	// Env is added to the environment: TERM=xterm.
	Env []string
}

// place finds a host's namespaces.
func (l *Lab) place(host string) (*place, error) {
	p, ok := l.wiring.places[host]
	if !ok {
		return nil, fmt.Errorf("no host is named %q; lab status lists them", host)
	}
	return p, nil
}

// Exec runs a command on a host and returns what it wrote to standard output.
// Where it fails, the error has what it wrote to standard error.
func (l *Lab) Exec(ctx context.Context, host string, argv ...string) ([]byte, error) {
	var out, stderr bytes.Buffer
	status, err := l.ExecStream(ctx, host, argv, Stdio{Out: &out, Err: &stderr})
	if err == nil && status != 0 {
		err = fmt.Errorf("running %q on %s: exit status %d: %s", argv, host, status, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.Bytes(), err
}

// ExecStream runs a command on a host and returns its exit status as a shell
// would: 128 + N where signal N ended it. When ctx ends, the command and its
// process group are killed.
func (l *Lab) ExecStream(ctx context.Context, host string, argv []string, stdio Stdio) (int, error) {
	p, err := l.place(host)
	if err != nil {
		return -1, err
	}
	if len(argv) == 0 {
		return -1, errors.New("running a command: none was given")
	}
	path, err := findProgram(argv[0], l.bin)
	if err != nil {
		return 127, err
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = append(l.env[:len(l.env):len(l.env)], stdio.Env...)
	cmd.Dir = "/"
	// What a command leaves behind must not keep this call from returning.
	cmd.WaitDelay = 500 * time.Millisecond
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var finish func()
	if stdio.Terminal != nil {
		finish, err = l.startOnTerminal(p, cmd, stdio)
	} else {
		finish, err = l.startOnPipes(p, cmd, stdio)
	}
	if err != nil {
		return -1, fmt.Errorf("running %q on %s: %w", argv, host, err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ctx.Done():
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				return
			case sig := <-stdio.Signals:
				_ = syscall.Kill(-cmd.Process.Pid, sig)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	finish()
	if ctx.Err() != nil {
		return -1, fmt.Errorf("running %q on %s: %w", argv, host, ctx.Err())
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok && !errors.Is(err, exec.ErrWaitDelay) {
		return -1, fmt.Errorf("running %q on %s: %w", argv, host, err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (l *Lab) startOnPipes(p *place, cmd *exec.Cmd, stdio Stdio) (finish func(), err error) {
	cmd.SysProcAttr.Setpgid = true
	cmd.Stdout, cmd.Stderr = stdio.Out, stdio.Err
	finish = func() {}
	if stdio.In != nil {
		// Not cmd.Stdin: Wait would then wait for the reader, which may never end.
		w, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		go func() {
			_, _ = io.Copy(w, stdio.In)
			w.Close()
		}()
	}
	return finish, p.do(cmd.Start)
}

func (l *Lab) startOnTerminal(p *place, cmd *exec.Cmd, stdio Stdio) (finish func(), err error) {
	var master *os.File
	err = p.do(func() (err error) {
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		master, err = pty.StartWithAttrs(cmd, stdio.Terminal, cmd.SysProcAttr)
		return err
	})
	if err != nil {
		return nil, err
	}
	copied, done := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = io.Copy(stdio.Out, master) // Ends with EIO when the last one has closed it.
		close(copied)
	}()
	go func() {
		if stdio.In != nil {
			_, _ = io.Copy(master, stdio.In)
		}
	}()
	go func() {
		for {
			select {
			case size := <-stdio.Resize:
				_ = pty.Setsize(master, &size)
			case <-done:
				return
			}
		}
	}()
	return func() {
		select {
		case <-copied:
		case <-time.After(500 * time.Millisecond):
		}
		close(done)
		master.Close()
	}, nil
}
