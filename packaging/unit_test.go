package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// settings reads a unit's assignments, the last of each key.
func settings(t *testing.T, path string) (text string, values map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			values[key] = value
		}
	}
	return string(data), values
}

// TestUnit: what lb4d and its operators rely on.
func TestUnit(t *testing.T) {
	text, got := settings(t, "systemd/lb4d.service")
	for key, want := range map[string]string{
		"Type":                  "notify",
		"ExecStart":             "/usr/sbin/lb4d -config /etc/lb/lb4d.toml",
		"ExecReload":            "/bin/kill -HUP $MAINPID",
		"WatchdogSec":           "10s",
		"Restart":               "always",
		"User":                  "lb4d",
		"Group":                 "lb",
		"AmbientCapabilities":   "CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
		"CapabilityBoundingSet": "CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
		"NoNewPrivileges":       "yes",
		"ReadWritePaths":        "-/etc/lb",
	} {
		if got[key] != want {
			t.Errorf("%s=%s, want %s", key, got[key], want)
		}
	}
	// It would make /proc/sys read-only, and lb4d could set no sysctl.
	if _, ok := got["ProtectKernelTunables"]; ok {
		t.Error("ProtectKernelTunables is set")
	}

	verify(t, text, "lb4d")
}

// TestLB7Unit: what lb7d and its operators rely on.
func TestLB7Unit(t *testing.T) {
	text, got := settings(t, "systemd/lb7d.service")
	for key, want := range map[string]string{
		"Type":                  "notify",
		"ExecStart":             "/usr/sbin/lb7d -config /etc/lb/lb7d.toml",
		"ExecReload":            "/bin/kill -HUP $MAINPID",
		"Before":                "haproxy.service",
		"Restart":               "always",
		"User":                  "lb7d",
		"Group":                 "lb",
		"SupplementaryGroups":   "haproxy",
		"AmbientCapabilities":   "CAP_NET_ADMIN",
		"CapabilityBoundingSet": "CAP_NET_ADMIN",
		"NoNewPrivileges":       "yes",
		"ProtectSystem":         "strict",
		"StateDirectory":        "lb",
		// Not /etc/haproxy as a whole, nor haproxy.cfg in it.
		"ReadWritePaths": "-/etc/lb -/etc/haproxy/conf.d",
	} {
		if got[key] != want {
			t.Errorf("%s=%s, want %s", key, got[key], want)
		}
	}
	if _, ok := got["ProtectKernelTunables"]; ok {
		t.Error("ProtectKernelTunables is set, so that lb7d can set no sysctl")
	}
	verify(t, text, "lb7d")
}

// TestLB7Files: what systemd-tmpfiles makes is what the shipped configurations
// need, twice as well as once, and leaves what is there.
func TestLB7Files(t *testing.T) {
	tmpfiles, err := exec.LookPath("systemd-tmpfiles")
	if err != nil || os.Geteuid() != 0 {
		if os.Getenv("LAB_REQUIRED") == "1" {
			t.Fatalf("systemd-tmpfiles cannot be run here: %v", err)
		}
		t.Skip("needs systemd-tmpfiles and root")
	}
	root := t.TempDir()
	for _, dir := range []string{"etc/lb", "etc/haproxy", "var/lib/lb"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shipped, err := os.ReadFile("systemd/lb7d.tmpfiles")
	if err != nil {
		t.Fatal(err)
	}
	// Names in ACLs are looked up on the host itself, which need not have it.
	rules := filepath.Join(root, "lb7d.conf")
	if err := os.WriteFile(rules, bytes.ReplaceAll(shipped, []byte("user:lb7d:"), []byte("user:64999:")), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out, err := exec.Command(tmpfiles, "--create", "--root="+root, rules).CombinedOutput(); err != nil {
			t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
		}
	}
	example, err := os.ReadFile("haproxy/directory.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(root, "etc/haproxy/pods.map")); err != nil || to != "/var/lib/lb/pods.map" ||
		!strings.Contains(string(example), "map(/etc/haproxy/pods.map)") {
		t.Errorf("the map of the example leads to %q, %v", to, err)
	}
	for path, want := range map[string]bool{"etc/lb": true, "etc/haproxy/conf.d": true, "etc/haproxy": false} {
		acl := make([]byte, 1024)
		n, err := syscall.Getxattr(filepath.Join(root, path), "system.posix_acl_access", acl)
		if has := err == nil && n > 0; has != want {
			t.Errorf("%s: lb7d may write: %v, want %v (%v)", path, has, want, err)
		}
	}
}

// verify has systemd judge the unit.
func verify(t *testing.T, text, program string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("LAB_REQUIRED") == "1" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Skip("systemd-analyze is not installed")
	}
	// The program is not installed where the test runs.
	copied := filepath.Join(t.TempDir(), program+".service")
	text = strings.Replace(text, "ExecStart=/usr/sbin/"+program, "ExecStart=/bin/true", 1)
	if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", copied).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
