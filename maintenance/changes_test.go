package maintenance

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestFileComesAndGoes in all the ways in which people and tools make and
// remove files. Each is seen through events alone and through polling alone.
func TestFileComesAndGoes(t *testing.T) {
	for _, tt := range []struct {
		name string
		// prepare runs before the watch; change after it. dir is where
		// lb/disable is watched.
		prepare func(t *testing.T, dir string)
		change  func(t *testing.T, dir string)
		present bool
		reason  string
	}{
		{
			name:    "touched",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/lb/disable", "") },
			present: true,
		},
		{
			name:    "written",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/lb/disable", "new kernel\nby night\n") },
			present: true,
			reason:  "new kernel",
		},
		{
			name:    "removed",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Remove(dir+"/lb/disable")) },
		},
		{
			name:    "renamed to",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/new", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/new", dir+"/lb/disable")) },
			present: true,
			reason:  "x",
		},
		{
			name: "renamed over",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/lb/disable", "old")
				write(t, dir+"/lb/disable.new", "new")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb/disable.new", dir+"/lb/disable")) },
			present: true,
			reason:  "new",
		},
		{
			name:    "renamed from",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb/disable", dir+"/lb/enable")) },
		},
		{
			name:    "with its directory",
			prepare: func(*testing.T, string) {},
			change:  func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name: "with a directory moved in",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb.new", 0o755))
				write(t, dir+"/lb.new/disable", "x")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb.new", dir+"/lb")) },
			present: true,
			reason:  "x",
		},
		{
			name:    "its directory removed",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/lb")) },
		},
		{
			name:    "its directory moved away",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb", dir+"/lb.old")) },
		},
		{
			name: "its directory removed and made anew",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
			},
			change: func(t *testing.T, dir string) {
				must(t, os.Remove(dir+"/lb"))
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/lb/disable", "x")
			},
			present: true,
			reason:  "x",
		},
		{
			name: "its directory a link that is switched",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/a", 0o755))
				must(t, os.Mkdir(dir+"/b", 0o755))
				write(t, dir+"/b/disable", "in b")
				must(t, os.Symlink("a", dir+"/lb"))
				must(t, os.Symlink("b", dir+"/lb.new"))
			},
			change:  func(t *testing.T, dir string) { must(t, os.Rename(dir+"/lb.new", dir+"/lb")) },
			present: true,
			reason:  "in b",
		},
		{
			name: "in a directory behind a link",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/a", 0o755))
				must(t, os.Symlink("a", dir+"/lb"))
			},
			change:  func(t *testing.T, dir string) { write(t, dir+"/a/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name:    "in a directory that is a link to its parent",
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink(".", dir+"/lb")) },
			change:  func(t *testing.T, dir string) { write(t, dir+"/disable", "x") },
			present: true,
			reason:  "x",
		},
		{
			name:    "a directory in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb/disable", 0o755)) },
			present: true,
		},
		{
			name:    "a dangling link in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", dir+"/lb/disable")) },
			present: true,
		},
		{
			name: "a link to a file in its place",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/lb", 0o755))
				write(t, dir+"/why", "switch replaced")
			},
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("../why", dir+"/lb/disable")) },
			present: true,
			reason:  "switch replaced",
		},
		{
			name:    "a pipe in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir+"/lb/disable", 0o644)) },
			present: true,
		},
		{
			name:    "a link to a device in its place",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)) },
			change:  func(t *testing.T, dir string) { must(t, os.Symlink("/dev/zero", dir+"/lb/disable")) },
			present: true,
		},
		{
			name:    "a file in the place of its directory",
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/lb", 0o755)); write(t, dir+"/lb/disable", "x") },
			change:  func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/lb")); write(t, dir+"/lb", "") },
		},
	} {
		for way, observe := range map[string]func(*testing.T, string) *observed{"by events": byEvents, "by polling": byPolling} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				dir := t.TempDir()
				tt.prepare(t, dir)
				o := observe(t, dir+"/lb/disable")
				before := o.State()
				tt.change(t, dir)
				after := o.await("after the change", func(s State) bool { return s.Present == tt.present && s.Reason == tt.reason })
				if after.Err != nil {
					t.Errorf("error %v", after.Err)
				}
				if before.Present == after.Present && !after.Since.Equal(before.Since) {
					t.Errorf("since %v, want the former %v: it was present all the time", after.Since, before.Since)
				}
				if before.Present != after.Present && !after.Since.After(before.Since) {
					t.Errorf("since %v, want later than %v", after.Since, before.Since)
				}
			})
		}
	}
}

// TestDirectoriesComeAndGo many times, several levels deep. The file is seen in
// each of them: the watch follows.
func TestDirectoriesComeAndGo(t *testing.T) {
	root := t.TempDir()
	deep := root + "/srv/lb/maintenance"
	o := byEvents(t, deep+"/disable")
	for i := range 20 {
		must(t, os.MkdirAll(deep, 0o755))
		write(t, deep+"/disable", fmt.Sprint("round ", i))
		o.awaitReason(fmt.Sprint("round ", i))
		must(t, os.Remove(deep+"/disable"))
		o.awaitAbsent("file removed")
		write(t, deep+"/disable", "")
		o.awaitPresent("file made again")
		must(t, os.RemoveAll(root+"/srv"))
		o.awaitAbsent("directories removed")
	}
}

// TestDirectoryMadeAnew: the kernel gives it the inode number of the one before
// it, so it looks like the one that was watched. The watch must be on it.
func TestDirectoryMadeAnew(t *testing.T) {
	dir := t.TempDir() + "/lb"
	must(t, os.Mkdir(dir, 0o755))
	o := byEvents(t, dir+"/disable")
	for range 20 {
		must(t, os.Remove(dir))
		must(t, os.Mkdir(dir, 0o755))
		write(t, dir+"/disable", "")
		o.awaitPresent("in the directory made anew")
		must(t, os.Remove(dir+"/disable"))
		o.awaitAbsent("removed from it")
	}
}
