package kernel_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lb4d/lab/kernel"
)

// verbs are what this test binary does instead of testing when it is started
// by one of its own tests, inside a machine or as the host of one.
var verbs = map[string]func(args []string) int{
	"echo": echo, "clock": clock, "host": host, "own": own,
}

func TestMain(m *testing.M) {
	kernel.Init()
	if len(os.Args) > 1 {
		if verb, ok := verbs[os.Args[1]]; ok {
			os.Exit(verb(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// kinds runs a test in both kinds of machine, leaving out (or failing, where
// LAB_REQUIRED=1) what cannot be had here.
func kinds(t *testing.T, test func(t *testing.T, k kernel.Kind)) {
	for _, k := range []kernel.Kind{kernel.Namespaces, kernel.UserMode} {
		t.Run(strings.ReplaceAll(k.String(), " ", "-"), func(t *testing.T) {
			need(t, k)
			test(t, k)
		})
	}
}

// need skips a test that cannot have its machine, or fails it where
// LAB_REQUIRED=1 says that it must.
func need(t *testing.T, k kernel.Kind) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "needs root"
	} else if _, err := exec.LookPath("linux.uml"); err != nil && k == kernel.UserMode {
		why = "needs Debian's package user-mode-linux"
	} else if raceDetector && k == kernel.UserMode {
		why = "the race detector's shadow memory does not fit into the 512 GiB of a guest's process"
	}
	switch {
	case why == "":
	case os.Getenv("LAB_REQUIRED") == "1":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// boot starts a machine and stops it with the test.
func boot(t *testing.T, o kernel.Options) *kernel.Machine {
	t.Helper()
	console := &bytes.Buffer{}
	o.Console = console
	m, err := kernel.Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if t.Failed() {
			t.Logf("console:\n%s", console)
		}
	})
	return m
}

// script runs a shell script in a machine and returns status and output.
func script(t *testing.T, k kernel.Kind, text string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	m := boot(t, kernel.Options{Kind: k, Command: []string{"sh", "-c", text}, Stdout: &out, Stderr: &out})
	code, err := m.Wait()
	if err != nil {
		t.Fatalf("running %q: %v", text, err)
	}
	return code, out.String()
}

func TestExitStatus(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		if code, out := script(t, k, "echo on stdout; echo on stderr >&2; exit 42"); code != 42 ||
			!strings.Contains(out, "on stdout\n") || !strings.Contains(out, "on stderr\n") {
			t.Errorf("got status %d and output %q, want 42 and both streams", code, out)
		}
		if code, _ := script(t, k, "kill -9 $$"); code != 128+9 {
			t.Errorf("killed by signal 9: got status %d, want %d", code, 128+9)
		}
	})
}

// TestInside looks at what a program finds inside.
func TestInside(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		mark := filepath.Join(t.TempDir(), "a file of the host")
		t.Setenv("LAB_TEST_MARK", mark)
		code, out := script(t, k, `set -e
			id -u; hostname; ls -A /run; echo "tmp $TMPDIR"
			ip -o link | wc -l; ip -o link show lo | grep -c UP
			ls /sys/class/net; echo "pid $$ of $(ls /proc | grep -c '^[0-9]')"
			date +%s > "$LAB_TEST_MARK"; mktemp`)
		if code != 0 {
			t.Fatalf("got status %d: %s", code, out)
		}
		for _, want := range []string{"0\nlab\n", "netns\n", "tmp /run/tmp\n", "\n1\n1\nlo\n", "/run/tmp/tmp."} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in:\n%s", want, out)
			}
		}
		b, err := os.ReadFile(mark)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil || time.Since(time.Unix(s, 0)).Abs() > time.Minute {
			t.Errorf("the time inside was %q, is %v here", b, time.Now())
		}
	})
}

func TestFailures(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		for _, tt := range []struct {
			name string
			o    kernel.Options
			want string
		}{
			{"no such command", kernel.Options{Command: []string{"no-such-program"}}, "no-such-program"},
			{"no such directory", kernel.Options{Command: []string{"true"}, Dir: "/no/such"}, "/no/such"},
			{"no such mount point", kernel.Options{Command: []string{"true"}, Tmpfs: []string{"/no/such"}}, "/no/such"},
		} {
			tt.o.Kind = k
			code, err := boot(t, tt.o).Wait()
			if err == nil || !strings.Contains(err.Error(), tt.want) || code != -1 {
				t.Errorf("%s: got status %d and error %v, want -1 and %q in it", tt.name, code, err, tt.want)
			}
		}
	})
}

// echo answers each stream with what comes in, until the host is gone.
func echo([]string) int {
	l, err := kernel.Listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return 0
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}

func TestStreams(t *testing.T) {
	kinds(t, func(t *testing.T, k kernel.Kind) {
		m := boot(t, kernel.Options{Kind: k, Command: []string{os.Args[0], "echo"}, Stderr: os.Stderr})
		const streams, size = 2, 5 << 20
		sums := make(chan error, streams)
		start := time.Now()
		for range streams {
			c, err := m.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() { sums <- echoed(c, size) }()
		}
		for range streams {
			if err := <-sums; err != nil {
				t.Error(err)
			}
		}
		t.Logf("%d MiB both ways in %v", streams*size>>20, time.Since(start))
	})
}

// echoed sends size random bytes and compares what returns.
func echoed(c net.Conn, size int64) error {
	sent, got := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(c, sent), rand.Reader, size)
		done <- err
	}()
	n, err := io.CopyN(got, c, size)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if err := <-done; err != nil {
		return err
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errors.New("the bytes that returned differ from those sent")
	}
	return nil
}
