package kernel_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/lab/kernel"
)

// program is a package with a test for each thing that must pass through.
const program = `package p

import (
	"os"
	"testing"
	"time"
)

func Covered() int { return 1 }

func TestPasses(t *testing.T) {
	Covered()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Log("in", dir, "with", os.Getenv("LAB_TEST_ENV"))
	if _, err := os.Stat("testdata/file"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(t.TempDir()+"/x", nil, 0o644); err != nil {
		t.Error(err)
	}
}

func TestFails(t *testing.T) { t.Error("as it should") }

func TestHangs(t *testing.T) { time.Sleep(time.Hour) }
`

// TestTestExec builds a test binary as go test would and runs it inside, from
// the temporary directory of go test itself.
func TestTestExec(t *testing.T) {
	need(t, kernel.UserMode)
	dir, err := os.MkdirTemp("/tmp", "lab-kernel-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"go.mod": "module p\n", "p_test.go": program, "testdata/file": "", "p.go": "package p\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "test", "-c", "-cover", "-o", "p.test", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building a test binary: %v\n%s", err, out)
	}
	t.Chdir(dir)
	t.Setenv("LAB_TEST_ENV", "a value\nof two lines")

	for _, tt := range []struct {
		run  string
		code int
		want []string
	}{
		{"TestPasses", 0, []string{"in " + dir + " with a value\n", "PASS"}},
		{"TestFails", 1, []string{"as it should", "FAIL"}},
		{"TestHangs", 2, []string{"panic: test timed out after 2s"}},
	} {
		var out bytes.Buffer
		start := time.Now()
		code, err := kernel.TestExec(t.Context(), []string{
			"./p.test", "-test.v", "-test.run=" + tt.run, "-test.timeout=2s", "-test.coverprofile=" + filepath.Join(dir, tt.run+".cover"),
		}, &out, &out)
		if err != nil || code != tt.code {
			t.Errorf("%s: status %d and error %v, want %d:\n%s", tt.run, code, err, tt.code, &out)
		}
		for _, w := range tt.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: %q is missing in:\n%s", tt.run, w, &out)
			}
		}
		t.Logf("%s took %v", tt.run, time.Since(start).Round(10*time.Millisecond))
	}
	if b, err := os.ReadFile(filepath.Join(dir, "TestPasses.cover")); err != nil || !strings.HasPrefix(string(b), "mode: ") {
		t.Errorf("the coverage profile: %q %v", b, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	code, err := kernel.TestExec(ctx, []string{"./p.test", "-test.run=TestHangs"}, nil, nil)
	if err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("interrupted: status %d and error %v after %v", code, err, time.Since(start))
	}
	if _, err := kernel.TestExec(t.Context(), []string{"./no-such.test"}, nil, nil); err == nil || !strings.Contains(err.Error(), "no-such.test") {
		t.Errorf("no such binary: got %v", err)
	}
}

// own tells what the kernel it runs in lacks.
func own([]string) int {
	if err := kernel.Own(context.Background()); err != nil {
		fmt.Println(err)
		return 1
	}
	m, err := kernel.Boot(context.Background(), kernel.Options{Command: []string{"sh", "-c", "ipvsadm -Ln && ip -br link"}, Stdout: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	code, err := m.Wait()
	fmt.Println(m.Kind(), code, err)
	return code
}

// TestOwn asks in a kernel that has all whether it has, and boots a machine
// in it: of namespaces, which see IPVS as well.
func TestOwn(t *testing.T) {
	need(t, kernel.UserMode)
	var out bytes.Buffer
	m := boot(t, kernel.Options{Kind: kernel.UserMode, Command: []string{os.Args[0], "own"}, Stdout: &out, Stderr: &out})
	code, err := m.Wait()
	if err != nil || code != 0 {
		t.Fatalf("status %d and error %v: %s", code, err, &out)
	}
	for _, w := range []string{"IP Virtual Server", "lo ", "namespaces 0"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("%q is missing in:\n%s", w, &out)
		}
	}
	if strings.Contains(out.String(), "probe-") {
		t.Errorf("the probe left a device:\n%s", &out)
	}
}
