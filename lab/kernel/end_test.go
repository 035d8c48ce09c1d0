package kernel_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lb4d/lab/kernel"
)

// host boots a machine in a process that the test can kill, says so, and
// waits. Its arguments are the kind, a mark for the machine's command, and
// perhaps "bare", for a process without CAP_SYS_ADMIN, as in a container.
func host(args []string) int {
	if len(args) == 3 {
		// Capabilities are the thread's: the same thread must call exec.
		runtime.LockOSThread()
		err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0)
		if err == nil {
			err = syscall.Exec("/proc/self/exe", append([]string{os.Args[0], "host"}, args[:2]...), os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	kind := kernel.UserMode
	if args[0] == kernel.Namespaces.String() {
		kind = kernel.Namespaces
	}
	m, err := kernel.Boot(context.Background(), kernel.Options{
		Kind: kind, Stdout: os.Stdout, Command: []string{"sh", "-c", "echo up; exec sleep " + args[1]},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m.Wait()
	return 0
}

// TestHostKilled kills the process that booted a machine: nothing may be left,
// neither process nor file.
func TestHostKilled(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind kernel.Kind
		args []string
	}{
		{"namespaces", kernel.Namespaces, nil},
		{"user-mode-linux", kernel.UserMode, nil},
		{"user-mode-linux without CAP_SYS_ADMIN", kernel.UserMode, []string{"bare"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.kind)
			dir := t.TempDir()
			mark := fmt.Sprintf("%d.%d", 100000+os.Getpid(), time.Now().UnixNano()%1e9)
			cmd := exec.Command(os.Args[0], append([]string{"host", tt.kind.String(), mark}, tt.args...)...)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
				t.Fatalf("the host said %q: %v", line, err)
			}
			// User-Mode Linux names its directory, and the guest's programs
			// do not show; in namespaces the command itself shows.
			if tt.kind == kernel.UserMode {
				mark = dir
			}
			if len(processes(t, mark)) == 0 {
				t.Fatal("no process of the machine is found while it is up")
			}
			cmd.Process.Kill()
			cmd.Wait()
			deadline := time.Now().Add(20 * time.Second)
			for len(processes(t, mark)) > 0 {
				if time.Now().After(deadline) {
					t.Fatalf("left behind: %q", processes(t, mark))
				}
				time.Sleep(50 * time.Millisecond)
			}
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// processes lists the command lines in which mark occurs.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		// One that has just ended cannot be read.
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(mark)) {
			found = append(found, string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func TestClose(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		for _, tt := range []struct {
			name, trap string
			code       int
			atLeast    time.Duration
		}{
			{"ends at TERM", "trap 'echo ending; exit 7' TERM", 7, 0},
			{"ignores TERM", "trap '' TERM", -1, 4 * time.Second},
		} {
			lines := make(chan string, 10)
			r, w := io.Pipe()
			go func() {
				for s := bufio.NewScanner(r); s.Scan(); {
					lines <- s.Text()
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m, err := kernel.Boot(ctx, kernel.Options{
				Kind: k, Stdout: w, Command: []string{"sh", "-c", tt.trap + "; echo up; while :; do sleep 0.1; done"},
			})
			if err != nil {
				t.Fatal(err)
			}
			<-lines
			start := time.Now()
			if tt.code < 0 {
				cancel() // The end of the context is the same as Close.
			} else {
				m.Close()
			}
			code, err := m.Wait()
			if took := time.Since(start); code != tt.code || took < tt.atLeast || took > 20*time.Second {
				t.Errorf("%s: status %d (%v) after %v, want %d after %v", tt.name, code, err, took, tt.code, tt.atLeast)
			}
			if tt.code < 0 && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got error %v, want the context's", tt.name, err)
			}
			if tt.code >= 0 {
				if got := <-lines; got != "ending" {
					t.Errorf("%s: last words %q", tt.name, got)
				}
			}
			if _, err := m.Dial(); err == nil {
				t.Errorf("%s: dialled a machine that is gone", tt.name)
			}
			w.Close()
		}
	})
}

// TestKernelDies: what the kernel said last must be in the error.
func TestKernelDies(t *testing.T) {
	need(t, kernel.UserMode)
	m := boot(t, kernel.Options{Kind: kernel.UserMode, Command: []string{"sh", "-c", "echo c > /proc/sysrq-trigger; sleep 20"}})
	code, err := m.Wait()
	if code != -1 || err == nil || !strings.Contains(err.Error(), "died") || !strings.Contains(err.Error(), "sysrq") {
		t.Errorf("got status %d and error %v, want -1 and the panic", code, err)
	}
}

// TestOrphans: process 1 reaps what its command has left.
func TestOrphans(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		code, out := script(t, k, `(sleep 0.2 & echo $! > /run/orphan) & wait
			pid=$(cat /run/orphan)
			for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
				test -e /proc/$pid || { echo reaped; exit 0; }
				sleep 0.2
			done
			cat /proc/$pid/status; exit 1`)
		if code != 0 || out != "reaped\n" {
			t.Errorf("status %d: %s", code, out)
		}
		// One that holds the output open must not hold the machine.
		start := time.Now()
		if code, _ := script(t, k, "sleep 100 & exit 3"); code != 3 || time.Since(start) > 30*time.Second {
			t.Errorf("with a process left: status %d after %v", code, time.Since(start))
		}
	})
}
