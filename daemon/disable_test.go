package daemon

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/bgp"
	"lb4d/control"
	"lb4d/maintenance"
)

// twoServices has mail besides www.
const twoServices = leastConfig + `
[service.mail]
vips = ["198.51.100.2"]
ports = ["25/tcp"]
pool = "lb7"
`

// disabling is a daemon that announces, with a maintenance file in a directory
// of the test.
func disabling(t *testing.T) (*world, *Daemon, string) {
	t.Helper()
	w, d := announcing(t, twoServices)
	path := filepath.Join(t.TempDir(), "lb", "disable")
	d.cfg.MaintenanceFile = path
	watcher := maintenance.Watch(t.Context(), path, d.poke, slog.New(slog.DiscardHandler))
	t.Cleanup(watcher.Close)
	d.maintenance = watcher
	return w, d, path
}

func carry(t *testing.T, d *Daemon, do func() (func() *control.DisableAnswer, error)) *control.DisableAnswer {
	t.Helper()
	answer, err := do()
	if err != nil {
		t.Fatal(err)
	}
	d.pass()
	return answer()
}

// TestDisableAndEnable write and remove the files, and answer when a pass has
// seen that.
func TestDisableAndEnable(t *testing.T) {
	w, d, path := disabling(t)
	disable := func(r control.DisableRequest) *control.DisableAnswer {
		return carry(t, d, func() (func() *control.DisableAnswer, error) { return d.disable(r) })
	}
	enable := func(service string) *control.DisableAnswer {
		return carry(t, d, func() (func() *control.DisableAnswer, error) {
			return d.enable(control.EnableRequest{Service: service})
		})
	}
	a := disable(control.DisableRequest{Reason: "new disk", Seconds: 1800, By: "zoe"})
	expect(t, "the host", w.routed(), "withdraw 198.51.100.1/32\nwithdraw 198.51.100.2/32")
	if a.Path != path || a.Was || !a.Disabled || a.Reason != "new disk" || len(a.VIPs) != 2 || a.VIPs[0].Announced ||
		time.Until(a.Until) < 29*time.Minute || time.Until(a.Until) > 31*time.Minute {
		t.Errorf("answer %+v", a)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "new disk\nuntil: "+a.Until.Format(time.RFC3339)+"\nby: zoe\n" {
		t.Errorf("file %q, %v", text, err)
	}
	if a := disable(control.DisableRequest{Reason: "newer disk"}); !a.Was || a.WasReason != "new disk" || a.Reason != "newer disk" || !a.Until.IsZero() {
		t.Errorf("a second time: %+v", a)
	}
	disable(control.DisableRequest{Service: "mail"})
	if a := enable(""); !a.Was || a.Disabled || len(a.Warnings) != 1 || a.Warnings[0] != "services are disabled by files of their own: mail" {
		t.Errorf("enabled: %+v", a)
	}
	expect(t, "the other service", w.routed(), "announce 198.51.100.1/32")
	if m := w.status.Maintenance; m.Present || len(m.Services) != 1 || m.Services[0].Service != "mail" {
		t.Errorf("status %+v", m)
	}
	if a := enable("mail"); !a.Was || a.Disabled || len(a.VIPs) != 1 || !a.VIPs[0].Announced {
		t.Errorf("mail enabled: %+v", a)
	}
	expect(t, "mail", w.routed(), "announce 198.51.100.2/32")
	if a := enable("mail"); a.Was || a.Disabled {
		t.Errorf("enabled again: %+v", a)
	}
}

// TestDisableRefused: nothing is written, and one line says why.
func TestDisableRefused(t *testing.T) {
	_, d, path := disabling(t)
	for _, tt := range []struct {
		r      control.DisableRequest
		status int
		want   string
	}{
		{control.DisableRequest{Service: "wwww"}, http.StatusNotFound, `there is no service "wwww": name one of mail, www`},
		{control.DisableRequest{Service: "../disable"}, http.StatusNotFound, `there is no service "../disable": name one of mail, www`},
		{control.DisableRequest{Reason: "until: 2020-01-01T00:00:00Z"}, http.StatusBadRequest, maintenance.ErrMisread.Error()},
		{control.DisableRequest{Reason: "two\nlines"}, http.StatusBadRequest, "the reason holds a character that does not print, at byte 4: write it on one line, without control characters"},
		{control.DisableRequest{Seconds: -1}, http.StatusBadRequest, "-1s is not between 1s and a year"},
		{control.DisableRequest{Seconds: 1e12}, http.StatusBadRequest, "1e+12s is not between 1s and a year"},
	} {
		_, err := d.disable(tt.r)
		var refusal *control.Refusal
		if !errors.As(err, &refusal) || refusal.Status != tt.status || refusal.Reason != tt.want {
			t.Errorf("%+v: got %v, want %d %s", tt.r, err, tt.status, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("something was written")
	}
	if err := d.mayNot(maintenance.Write("/proc/lb/disable", maintenance.Note{}), "write", "/proc/lb/disable"); err == nil {
		t.Error("no error")
	}
	err := d.mayNot(os.ErrPermission, "write", "/etc/lb/disable")
	var refusal *control.Refusal
	if !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden || !strings.HasSuffix(refusal.Reason, "may not write /etc/lb/disable; run this as root") {
		t.Errorf("got %v", err)
	}
}

// TestDisableLast: what nobody else announces is not taken out by a command
// without force, and the file is obeyed all the same.
func TestDisableLast(t *testing.T) {
	w, d, path := disabling(t)
	a := carry(t, d, func() (func() *control.DisableAnswer, error) {
		return d.disable(control.DisableRequest{Service: "mail"})
	})
	if len(a.Warnings) != 1 || !strings.HasSuffix(a.Warnings[0], "because no peer tells: 198.51.100.2") {
		t.Errorf("warnings %q", a.Warnings)
	}
	w.routed()
	w.peersNow = []bgp.PeerStatus{{Name: "rr1", Received: bgp.Received{Tells: bgp.IPv4, All: bgp.IPv4}}}
	d.pass()
	_, err := d.disable(control.DisableRequest{})
	want := "no other host announces 198.51.100.1: withdrawn here, nobody reaches it; to disable all the same, use --force"
	var refusal *control.Refusal
	if !errors.As(err, &refusal) || refusal.Status != http.StatusConflict || refusal.Reason != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("the file was written")
	}
	a = carry(t, d, func() (func() *control.DisableAnswer, error) { return d.disable(control.DisableRequest{Force: true}) })
	expect(t, "by force", w.routed(), "withdraw 198.51.100.1/32")
	if len(a.Warnings) != 1 || a.Warnings[0] != "no other host announces 198.51.100.1" {
		t.Errorf("warnings %q", a.Warnings)
	}
}

// TestStrays are told once, and may be taken away.
func TestStrays(t *testing.T) {
	w, d, path := disabling(t)
	if err := maintenance.Write(maintenance.ServicePath(path, "wwww"), maintenance.Note{}); err != nil {
		t.Fatal(err)
	}
	d.maintenance.Refresh()
	d.pass()
	d.pass()
	if n := strings.Count(w.log.String(), `msg="maintenance file of a service that there is not"`); n != 1 {
		t.Errorf("told %d times:\n%s", n, w.log.String())
	}
	if m := w.status.Maintenance.Services; len(m) != 1 || !m[0].Unknown {
		t.Errorf("status %+v", m)
	}
	expect(t, "routes", w.routed(), "")
	if a := carry(t, d, func() (func() *control.DisableAnswer, error) {
		return d.enable(control.EnableRequest{Service: "wwww"})
	}); a.Disabled || !a.Was {
		t.Errorf("enabled: %+v", a)
	}
}
