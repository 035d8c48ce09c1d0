package directory

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLinkedFile: a link in HAProxy's directory leads to the file in lb7d's,
// and stays a link.
func TestLinkedFile(t *testing.T) {
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "haproxy"), filepath.Join(dir, "lb")
	for _, d := range []string{theirs, ours} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link, file := filepath.Join(theirs, "pods.map"), filepath.Join(ours, "pods.map")
	if err := os.Symlink("../lb/pods.map", link); err != nil {
		t.Fatal(err)
	}
	// Root may write anywhere, so what counts is where the file is.
	if _, err := readFile(link); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != head {
		t.Errorf("made %q, %v", text, err)
	}
	k := &keeper{d: &Directory{cfg: Config{Map: link}}, wantFile: time.Now().Add(-time.Hour)}
	k.d.table = newTable(time.Hour)
	k.d.table.put("www.example.org", "pod1", time.Now(), false)
	k.keepFile(true)
	if text, err := os.ReadFile(file); err != nil || string(text) != head+"www.example.org pod1\n" {
		t.Errorf("wrote %q, %v; problem %q", text, err, k.d.now.file)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link has become %v, %v", info, err)
	}
}

// TestLanding: links are followed to their end, and a circle ends too.
func TestLanding(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, to := range map[string]string{"a": "b", "b": at("c"), "loop": "pool", "pool": "loop"} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"a": "c", "c": "c", "none": "none", "loop": "loop"} {
		if got := landing(at(path)); got != at(want) {
			t.Errorf("%s leads to %s, want %s", path, got, at(want))
		}
	}
}
