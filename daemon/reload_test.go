package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lb4d/health"
)

// reloadWorld is a daemon that announces the least configuration, read from a
// file.
func reloadWorld(t *testing.T) (w *world, d *Daemon, rewrite func(old, new string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb4d.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(leastConfig)
	cfg := parse(t, leastConfig)
	w, d = newWorld(t, cfg)
	d.opts.ConfigPath = path
	d.cfgFile.Path = path
	w.are(cfg, health.Up)
	d.pass()
	w.since()
	w.log.Reset()
	return w, d, func(old, new string) {
		if !strings.Contains(leastConfig, old) {
			t.Fatalf("the configuration has no %q", old)
		}
		write(strings.Replace(leastConfig, old, new, 1))
	}
}

// TestReloadRefused: a file with a fault changes nothing; one line in the log
// and the status say what is wrong.
func TestReloadRefused(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"a port that is none", `"80/tcp"`, `"70000/tcp"`, "lb4d.toml:15: service.www.ports"},
		{"two faults", `pool = "lb7"`, "pool = \"lb8\"\nflags = [\"mh-prot\"]", "and 1 more"},
		{"no TOML", `[bgp]`, `[bgp`, "lb4d.toml:2"},
		{"the AS", `as = 65000`, `as = 65001`, "bgp.as: cannot change from 65000 to 65001 in a running daemon; restart lb4d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, d, rewrite := reloadWorld(t)
			rewrite(tt.old, tt.new)
			d.reload()
			d.pass()
			expect(t, "done", w.since(), "")
			if lines := strings.Split(strings.TrimSpace(w.log.String()), "\n"); len(lines) != 1 || !strings.Contains(lines[0], tt.want) {
				t.Errorf("logged\n%s\nwant one line with %q", w.log.String(), tt.want)
			}
			if !strings.Contains(w.status.Config.Error, tt.want) || !strings.HasSuffix(w.status.Summary, "; last reload refused") {
				t.Errorf("status tells %q and %q, want %q and that the reload was refused", w.status.Config.Error, w.status.Summary, tt.want)
			}
			i := slices.IndexFunc(w.notified, func(s string) bool { return strings.HasPrefix(s, "RELOADING=1") })
			if i < 0 || !slices.Contains(w.notified[i:], "READY=1") {
				t.Errorf("notified %q, want RELOADING=1 and then READY=1", w.notified)
			}

			if err := os.WriteFile(d.opts.ConfigPath, []byte(leastConfig), 0o644); err != nil {
				t.Fatal(err)
			}
			d.reload()
			d.pass()
			if w.status.Config.Error != "" {
				t.Errorf("after a good reload the status still says %q", w.status.Config.Error)
			}
		})
	}
}

// TestReloadAddsVIP: what was there is not touched.
func TestReloadAddsVIP(t *testing.T) {
	w, d, rewrite := reloadWorld(t)
	rewrite(`["198.51.100.1"]`, `["198.51.100.1", "198.51.100.2"]`)
	d.reload()
	d.pass()
	expect(t, "done", w.since(), strings.ReplaceAll(built, "198.51.100.1", "198.51.100.2"))
}

// TestReloadRemovesMember: its flows keep their destination until they end.
func TestReloadRemovesMember(t *testing.T) {
	w, d, rewrite := reloadWorld(t)
	w.tableNow[0].Destinations[1].ActiveConns = 3
	rewrite(`"192.0.2.139", "192.0.2.140"`, `"192.0.2.139"`)
	d.reload()
	d.pass()
	expect(t, "done", w.since(),
		"move destination 198.51.100.1:80/tcp -> 192.0.2.140:80 to the head, weight 0 of 0 ipip (was weight 1 ipip)")
	d.pass()
	expect(t, "while it has flows", w.since(), "")
	w.tableNow[0].Destinations[0].ActiveConns = 0
	d.pass()
	expect(t, "when its flows have ended", w.since(),
		"delete destination 198.51.100.1:80/tcp -> 192.0.2.140:80")
}
