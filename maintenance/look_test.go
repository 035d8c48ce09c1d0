package maintenance

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		want string
	}{
		{"empty", "", ""},
		{"one line", "new kernel", "new kernel"},
		{"first of two lines", "new kernel\nback at noon\n", "new kernel"},
		{"line of a foreign editor", "new kernel\r\n", "new kernel"},
		{"tabs and blanks", " \tnew\tkernel  \n", "new kernel"},
		{"an empty first line", "\nnew kernel\n", ""},
		{"colours and bells", "\x1b[31mred\x1b[0m\a\x00", "[31mred[0m"},
		{"characters that turn the line round", "a\u202eb\u200bc", "abc"},
		{"other scripts", "заміна ядра, 更新", "заміна ядра, 更新"},
		{"not UTF-8", "caf\xe9 \xff\xfe", "caf"},
		{"200 bytes", strings.Repeat("x", 200), strings.Repeat("x", 200)},
		{"more", strings.Repeat("x", 201), strings.Repeat("x", 200)},
		{"cut in the middle of a character", strings.Repeat("x", 199) + "é", strings.Repeat("x", 199)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disable")
			write(t, path, tt.text)
			if got := look(path); !got.present || got.reason != tt.want || got.err != nil {
				t.Errorf("got %+v, want reason %q", got, tt.want)
			}
		})
	}
}

// TestHugeFile costs no more than a small one.
func TestHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disable")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, os.Truncate(path, 1<<40)) // sparse
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := look(path)
	runtime.ReadMemStats(&after)
	if !got.present || got.reason != "" || got.err != nil {
		t.Errorf("got %+v, want present without a reason", got)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("allocated %d bytes", n)
	}
}

// TestPermission looks with the rights of nobody, as a daemon with its own user
// does.
func TestPermission(t *testing.T) {
	dir := t.TempDir()
	// The directory that holds those of a test is closed to others.
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Mkdir(dir+"/closed", 0o755))
	write(t, dir+"/closed/disable", "x")
	must(t, os.Chmod(dir+"/closed", 0))
	t.Cleanup(func() { os.Chmod(dir+"/closed", 0o755) })
	write(t, dir+"/secret", "x")
	must(t, os.Chmod(dir+"/secret", 0))

	asNobody(t, func() {
		got := look(dir + "/closed/disable")
		if !got.unknown || !errors.Is(got.err, fs.ErrPermission) {
			t.Errorf("in a closed directory: got %+v, want unknown for want of permission", got)
		}
		got = look(dir + "/secret")
		if got.unknown || !got.present || got.reason != "" || !errors.Is(got.err, fs.ErrPermission) {
			t.Errorf("unreadable: got %+v, want present, and no reason for want of permission", got)
		}
	})
}

// asNobody runs f with the file system rights of an ordinary user. Linux has
// them per thread, and setting them takes the capabilities that override
// permissions with it.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, syscall.Setfsuid(65534))
	defer func() { must(t, syscall.Setfsuid(0)) }()
	f()
}
