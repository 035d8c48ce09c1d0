package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lb4d/lab"
	"lb4d/lab/kernel"
)

// socketPath is where the lab that is up is found, and logPath has what its
// daemon said. A second lab beside it has another socket.
var (
	socketPath = cmp.Or(os.Getenv("LAB_SOCKET"), "/run/lb-lab.sock")
	logPath    = strings.TrimSuffix(socketPath, ".sock") + ".log"
)

const (
	// bootTimeout bounds the wait for a machine.
	bootTimeout = 90 * time.Second
	// downTimeout bounds the wait for its end.
	downTimeout = 20 * time.Second
)

// errNoLab is what verbs fail with that need a lab.
var errNoLab = errors.New("no lab is up: start one with lab up")

// connect opens a connection to the lab that is up.
func connect() (net.Conn, error) {
	conn, err := net.Dial("unix", socketPath)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNoLab
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("connecting to the lab: %w: be root", err)
	case err != nil:
		return nil, fmt.Errorf("connecting to the lab: %w", err)
	}
	return conn, nil
}

// boot starts a machine with nothing in it but the server of a lab.
func boot(ctx context.Context, sizes lab.Sizes) (*kernel.Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("booting a machine: %w", err)
	}
	return kernel.Boot(ctx, kernel.Options{
		Command: []string{self, "guest"},
		Dir:     "/",
		Memory:  memory(sizes),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	})
}

// memory is what a machine for a lab is granted, in MiB. Only what is used is
// taken of the host.
func memory(s lab.Sizes) int { return 768 + 64*s.LB4 + 32*(s.LB7+s.Routers) + 64*s.Reflectors }

// guest serves a lab inside a machine, until the host is gone or has it down.
func guest([]string) (int, error) {
	l, err := kernel.Listen()
	if err != nil {
		return statusFault, err
	}
	self, err := os.Executable()
	if err != nil {
		return statusFault, err
	}
	ctx, stop := interruptible()
	defer stop()
	return 0, lab.Serve(ctx, l, filepath.Dir(self))
}

// daemon boots a machine and passes on what comes to the socket, until the
// machine ends.
func daemon(args []string) (int, error) {
	f := flagSet("daemon")
	sizes := sizeFlags(f)
	if err := f.Parse(args); err != nil {
		return statusUsage, err
	}
	ctx, stop := interruptible()
	defer stop()
	l, err := listen()
	if err != nil {
		return statusFault, err
	}
	defer l.Close()
	m, err := boot(ctx, sizes.sizes())
	if err != nil {
		return statusFault, err
	}
	go relay(l, m)
	code, err := m.Wait()
	if errors.Is(err, context.Canceled) {
		return 0, nil // It was told to end.
	}
	return code, err
}

// listen opens the socket, for root alone.
func listen() (net.Listener, error) {
	if conn, err := connect(); err == nil {
		conn.Close()
		return nil, errors.New("a lab is up already: end it with lab down")
	}
	_ = os.Remove(socketPath) // Left behind by one that was killed.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", socketPath)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("opening the lab's socket: %w", err)
	}
	return l, nil
}

// relay connects whoever comes to the socket with the server in the machine.
func relay(l net.Listener, m *kernel.Machine) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			inside, err := m.Dial()
			if err != nil {
				return
			}
			defer inside.Close()
			// The protocol says in words when a side has ended; so the first
			// end of a copy is that of the whole.
			done := make(chan struct{}, 2)
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				done <- struct{}{}
			}
			go pass(inside, conn)
			go pass(conn, inside)
			<-done
		}()
	}
}

// detach starts the daemon as a process of its own and returns when its
// socket answers.
func detach(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, append([]string{"daemon"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	deadline := time.Now().Add(bootTimeout)
	for time.Now().Before(deadline) {
		if conn, err := connect(); err == nil {
			// It answers when the machine has booted.
			_, err := ask(conn, lab.Request{Verb: "hello"})
			if err == nil {
				return nil
			}
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(logPath)
			return fmt.Errorf("starting the lab: its daemon has ended: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = cmd.Process.Kill()
	return fmt.Errorf("starting the lab: not there after %v; %s has what its daemon said", bootTimeout, logPath)
}
