package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a program may take to end after TERM before it is
// killed.
const stopTimeout = 5 * time.Second

// program is one supervised program of a host. It is not started again by
// itself when it ends: an end is either wanted or the thing to look at.
type program struct {
	name  string
	place *place
	argv  []string // argv[0] is an absolute path
	env   []string
	log   *logFile

	mu      sync.Mutex
	cmd     *exec.Cmd
	started time.Time
	// ended is closed when cmd has been waited for.
	ended chan struct{}
	// outcome says how it ended, once ended is closed.
	outcome string
}

// findProgram looks for a program beside the lab's own, so that a checkout is
// tested by itself, and then along PATH.
func findProgram(name, dir string) (string, error) {
	if dir != "" {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("finding %s in %q or PATH: %w", name, dir, err)
	}
	return path, nil
}

// start runs the program, unless it is running.
func (p *program) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runningLocked() {
		return nil
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Env = "/", p.env
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// A child that keeps the pipe open must not keep Wait from returning.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.place.do(cmd.Start); err != nil {
		return fmt.Errorf("starting %s on %s: %w", p.name, p.place.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.started, p.ended, p.outcome = cmd, time.Now(), ended, ""
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.outcome = "exited with status 0"
		if err != nil {
			p.outcome = err.Error()
		}
		close(ended)
	}()
	return nil
}

func (p *program) runningLocked() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal to the program itself.
func (p *program) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return errors.New("it is not running")
	}
	return p.cmd.Process.Signal(sig)
}

// stop ends the program, by force where it has to, and waits for its end.
func (p *program) stop() {
	p.mu.Lock()
	cmd, ended, running := p.cmd, p.ended, p.runningLocked()
	p.mu.Unlock()
	if !running {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(stopTimeout):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// state tells how the program is, and since when it was started.
func (p *program) state() (pid int, started time.Time, outcome string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cmd == nil:
		return 0, time.Time{}, "not started"
	case p.runningLocked():
		return p.cmd.Process.Pid, p.started, ""
	}
	return 0, p.started, p.outcome
}

// lastWords tells in one line how the program is and what it wrote last.
func (p *program) lastWords() string {
	said := "it wrote nothing"
	if line := p.log.lastLine(); line != "" {
		said = "it wrote last: " + line
	}
	if _, _, outcome := p.state(); outcome != "" {
		return fmt.Sprintf("%s %s; %s", p.name, outcome, said)
	}
	return fmt.Sprintf("%s is running; %s", p.name, said)
}
