package kernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissingPackages(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("no dpkg here")
	}
	got, err := missingPackages(t.Context(), []string{"dpkg", "no-such-package-as-this", "base-files"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"no-such-package-as-this"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinkModules(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "lib", "modules")
	for _, v := range []string{"6.1.1", "6.1.2", "6.1.3"} {
		if err := os.Mkdir(filepath.Join(from, v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(to, "6.1.1"), 0o755); err != nil { // the host's own
		t.Fatal(err)
	}
	if err := os.Symlink("/no/such", filepath.Join(to, "6.1.2")); err != nil { // of a package that was replaced
		t.Fatal(err)
	}
	for range 2 {
		if err := linkModules(from, to); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		entries, _ := os.ReadDir(to)
		for _, e := range entries {
			got[e.Name()], _ = os.Readlink(filepath.Join(to, e.Name()))
		}
		want := map[string]string{"6.1.1": "", "6.1.2": filepath.Join(from, "6.1.2"), "6.1.3": filepath.Join(from, "6.1.3")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestDenyServices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy-rc.d")
	restore, err := denyServices(file)
	if err != nil {
		t.Fatal(err)
	}
	err = exec.Command(file, "haproxy", "start").Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 101 {
		t.Errorf("it answers %v, want status 101", err)
	}
	restore()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("it is left behind: %v", err)
	}

	if err := os.WriteFile(file, []byte("the machine's own"), 0o755); err != nil {
		t.Fatal(err)
	}
	restore, err = denyServices(file)
	if err != nil {
		t.Fatal(err)
	}
	restore()
	if b, err := fs.ReadFile(os.DirFS(filepath.Dir(file)), "policy-rc.d"); string(b) != "the machine's own" {
		t.Errorf("the machine's own is %q %v", b, err)
	}
}

func TestMemoryDir(t *testing.T) {
	dir, err := memoryDir(1)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(dir); err != nil || !s.IsDir() {
		t.Errorf("%s: %v", dir, err)
	}
	if dir, err := memoryDir(1 << 40); err == nil {
		t.Errorf("a memory of an exbibyte fits into %s", dir)
	}
}
