package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb4d.toml")
	write(t, path, Minimal)
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.BGP.AS != 65000 {
		t.Errorf("as is %d, want 65000", cfg.BGP.AS)
	}
}

// TestLoadWhatCannotBeRead proves one line for each reason, which names the
// file.
func TestLoadWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"nothing there",
			func(*testing.T, string) {},
			"does not exist; write it, or name another with -config"},
		{"a directory",
			func(t *testing.T, path string) {
				if err := os.Mkdir(path, 0o755); err != nil {
					t.Fatal(err)
				}
			},
			"is a directory; name a file with -config"},
		{"100 MB",
			func(t *testing.T, path string) {
				write(t, path, "")
				if err := os.Truncate(path, 100<<20); err != nil {
					t.Fatal(err)
				}
			},
			"is larger than 1 MiB; a configuration never is, so name the right file with -config"},
		{"a device without end",
			func(t *testing.T, path string) {
				if err := os.Symlink("/dev/zero", path); err != nil {
					t.Fatal(err)
				}
			},
			"is larger than 1 MiB; a configuration never is, so name the right file with -config"},
		{"a link to itself",
			func(t *testing.T, path string) {
				if err := os.Symlink(path, path); err != nil {
					t.Fatal(err)
				}
			},
			"cannot be read: too many levels of symbolic links; mend that, or name another file with -config"},
		{"no permission",
			func(t *testing.T, path string) {
				write(t, path, Minimal)
				forbid(t, path)
			},
			"may not be read by this user; give it read permission, as with chgrp lb and chmod g+r"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(tc.name, " ", "-"))
			tc.make(t, path)
			_, err := Load(path)
			if err == nil {
				t.Fatal("no fault")
			}
			if got, want := err.Error(), path+": "+tc.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	for _, tc := range []struct {
		name, content, want string
	}{
		{"with a line feed", "hunter2\n", "hunter2"},
		{"without one", "hunter2", "hunter2"},
		{"with two", "hunter2\n\n", "hunter2\n"},
		{"as long as may be", strings.Repeat("p", 80) + "\n", strings.Repeat("p", 80)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := parsePassword(t, tc.content, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(cfg.BGP.Peers[0].Password); got != tc.want {
				t.Errorf("password is %q, want %q", got, tc.want)
			}
		})
	}
}

// TestFaultsOfPasswords tells what can be wrong with a password file, and that
// nothing of its content is told.
func TestFaultsOfPasswords(t *testing.T) {
	const secret = "hunter2"
	for _, tc := range []struct {
		name, content string
		forbidden     bool
		want          string
	}{
		{"empty", "", false,
			"is empty; write the password that the peer has into it, or leave the key out"},
		{"a line feed alone", "\n", false,
			"is empty; write the password that the peer has into it, or leave the key out"},
		{"too long", strings.Repeat(secret, 12), false,
			"holds more than 80 bytes, which is the most that TCP MD5 takes; write a shorter password into it"},
		{"one byte too long", strings.Repeat("p", 81) + "\n", false,
			"holds more than 80 bytes, which is the most that TCP MD5 takes; write a shorter password into it"},
		{"a NUL byte", secret + "\x00", false,
			"holds a NUL byte; write the password as text into it"},
		{"a carriage return", secret + "\r\n", false,
			"ends with a carriage return, which would be part of the password; save it with a line feed alone"},
		{"no permission", secret, true,
			"may not be read by this user; give it read permission, as with chgrp lb and chmod 0640"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var key string
			_, err := parsePassword(t, tc.content, func(path string) {
				key = path
				if tc.forbidden {
					forbid(t, path)
				}
			})
			if err == nil {
				t.Fatal("no fault")
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the fault shows the password: %v", err)
			}
			want := fmt.Sprintf("lb4d.toml:8: bgp.peer.rr1.password_file: %s %s", quotePath(key), tc.want)
			if got := err.Error(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestSecretIsNotShown proves that no way of writing a configuration down
// shows its passwords.
func TestSecretIsNotShown(t *testing.T) {
	const secret = "hunter2"
	cfg, err := parsePassword(t, secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "config", cfg, "peer", cfg.BGP.Peers[0], "password", cfg.BGP.Peers[0].Password)
	for how, shown := range map[string]string{
		"%v":   fmt.Sprintf("%v", *cfg),
		"%+v":  fmt.Sprintf("%+v", *cfg),
		"%#v":  fmt.Sprintf("%#v", *cfg),
		"text": cfg.BGP.Peers[0].Password.String(),
		"JSON": string(encoded),
		"slog": log.String(),
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s shows the password: %s", how, shown)
		}
	}
}

// parsePassword parses a configuration whose peer has a password file with the
// given content; prepare may change the file before.
func parsePassword(t *testing.T, content string, prepare func(path string)) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, content)
	if prepare != nil {
		prepare(path)
	}
	return Parse("lb4d.toml", []byte(strings.Replace(Minimal, "[pool.lb7]",
		fmt.Sprintf("password_file = %q\n[pool.lb7]", path), 1)))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// forbid takes from this thread the permission to read a file, for the rest of
// the test. Root may read whatever its mode is, so root becomes nobody where
// files are concerned.
func forbid(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	unix.SetfsuidRetUid(nobody)
	t.Cleanup(func() {
		unix.SetfsuidRetUid(0)
		runtime.UnlockOSThread()
	})
}
