package tunnel

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes a directory that stands for /proc/sys.
func tree(t *testing.T, values map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for key, value := range values {
		file := path(root, key)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// What a device needs depends on "all", in a different manner for either key.
func TestPathSysctls(t *testing.T) {
	for _, tt := range []struct {
		name              string
		acceptAll, accept string
		filterAll, filter string
		want              []string
	}{
		{"the kernel's defaults", "0", "0", "0", "0", []string{"net.ipv4.conf.bond0/100.accept_local=1"}},
		{"as needed", "0", "1", "0", "0", nil},
		{"accepted everywhere", "1", "0", "0", "0", nil},
		{"strict everywhere", "0", "1", "1", "0", []string{"net.ipv4.conf.bond0/100.rp_filter=2"}},
		{"strict here", "0", "1", "0", "1", []string{"net.ipv4.conf.bond0/100.rp_filter=2"}},
		{"strict everywhere, loose here", "0", "1", "1", "2", nil},
		{"strict here, loose everywhere", "0", "1", "2", "1", nil},
		{"loose everywhere", "0", "1", "2", "0", nil},
		{"strict", "0", "0", "1", "1", []string{
			"net.ipv4.conf.bond0/100.accept_local=1", "net.ipv4.conf.bond0/100.rp_filter=2",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t, map[string]string{
				"net.ipv4.conf.all.accept_local": tt.acceptAll, "net.ipv4.conf.bond0/100.accept_local": tt.accept,
				"net.ipv4.conf.all.rp_filter": tt.filterAll, "net.ipv4.conf.bond0/100.rp_filter": tt.filter,
			})
			needed, err := pathSysctls(root, []string{"bond0.100", "gone0"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range needed {
				got = append(got, s.Key+"="+s.Value)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("needed (-want +got):\n%s", diff)
			}
			if _, err := applySysctls(root, needed); err != nil {
				t.Fatal(err)
			}
			if again, err := pathSysctls(root, []string{"bond0.100"}); err != nil || len(again) != 0 {
				t.Errorf("needed a second time: %v (%v)", again, err)
			}
		})
	}
}

// What somebody else has set since is left alone.
func TestRestoreSysctls(t *testing.T) {
	change := func(key, was, value string) SysctlChange {
		return SysctlChange{Sysctl: Sysctl{Key: "net.ipv4.conf." + key, Value: value}, Was: was}
	}
	changes := []SysctlChange{
		change("eth0.accept_local", "0", "1"),
		change("eth0.rp_filter", "1", "2"),
		change("eth1.accept_local", "0", "1"),
		change("eth1.rp_filter", "1", "2"),
		change("gone0.rp_filter", "1", "2"),
		change("dir.rp_filter", "1", "2"),
		change("eth1.rp_filter", "0", "2"), // set to 0 by another hand meanwhile
	}
	root := tree(t, map[string]string{
		"net.ipv4.conf.eth0.accept_local": "1",
		"net.ipv4.conf.eth0.rp_filter":    "0", // so since then
		"net.ipv4.conf.eth1.accept_local": "1",
		"net.ipv4.conf.eth1.rp_filter":    "2",
		"net.ipv4.conf.dir.rp_filter.x":   "",
	})
	done, err := restoreSysctls(root, changes)
	want := []string{
		"net.ipv4.conf.eth0.accept_local = 0 (was 1)",
		"net.ipv4.conf.eth1.accept_local = 0 (was 1)",
		"net.ipv4.conf.eth1.rp_filter = 0 (was 2)",
	}
	if diff := cmp.Diff(want, changed(done)); diff != "" {
		t.Errorf("set back (-want +got):\n%s", diff)
	}
	checkLines(t, err, []string{"reading net.ipv4.conf.dir.rp_filter: "})
	for key, value := range map[string]string{"eth0.accept_local": "0", "eth0.rp_filter": "0", "eth1.accept_local": "0", "eth1.rp_filter": "0"} {
		if got, err := readSysctl(root, "net.ipv4.conf."+key); got != value {
			t.Errorf("%s is %q (%v), want %q", key, got, err, value)
		}
	}
	if again, _ := restoreSysctls(root, changes); len(again) != 0 {
		t.Errorf("set back a second time: %q", changed(again))
	}
}

// TestForProbes: what comes out of a file is set back as root, so it has to be
// one of the two keys of a device, and no way to another file.
func TestForProbes(t *testing.T) {
	change := func(key, value, was string) SysctlChange {
		return SysctlChange{Sysctl: Sysctl{Key: key, Value: value}, Was: was}
	}
	for _, good := range []SysctlChange{
		change("net.ipv4.conf.eth0.accept_local", "1", "0"),
		change("net.ipv4.conf.eth0/100.rp_filter", "2", "1"),
		change("net.ipv4.conf.all.rp_filter", "2", "0"),
	} {
		if !ForProbes(good) {
			t.Errorf("%s is refused", good)
		}
	}
	for _, bad := range []SysctlChange{
		change("", "", ""),
		change("kernel.panic", "0", "1"),
		change("kernel.core_pattern", "core", "|/tmp/x"),
		change("net.ipv4.vs.sloppy_tcp", "1", "0"),
		change("net.ipv4.conf.eth0.forwarding", "1", "0"),
		change("net.//.//.//.etc.passwd", "1", "0"),
		change("net.ipv4.conf.//.rp_filter", "1", "0"),
		change("net.ipv4.conf./.rp_filter", "1", "0"),
		change("net.ipv4.conf.//.//.//.x.rp_filter", "1", "0"),
		change("net.ipv4.conf..rp_filter", "1", "0"),
		change("net.ipv4.conf.rp_filter", "1", "0"),
		change("net.ipv4.conf.eth0\x00.rp_filter", "1", "0"),
		change("net.ipv4.conf.a-name-that-is-too-long.rp_filter", "1", "0"),
		change("net.ipv4.conf.eth0.accept_local", "1", "2"),
		change("net.ipv4.conf.eth0.accept_local", "1", "0\n"),
		change("net.ipv4.conf.eth0.rp_filter", "2", "-1"),
	} {
		if ForProbes(bad) {
			t.Errorf("%s is taken", bad)
		}
	}
}
