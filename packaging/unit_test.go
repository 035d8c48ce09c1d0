package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
