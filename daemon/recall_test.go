package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/health"
	"lb4d/tunnel"
)

// TestRecallHostileState: what the state file says is carried out as root, so
// that nothing is taken of it which lb4d would not have written. The rest holds.
func TestRecallHostileState(t *testing.T) {
	dir := t.TempDir()
	const text = `{"vips":["198.51.100.2","198.51.100.1","","::ffff:192.0.2.9","fe80::1%eth0","fe80::1","127.0.0.1","0.0.0.0","224.0.0.1","198.51.100.2"],
"announced":["","fe80::1"],"check_mark":4294967295,
"flaps":[{"vip":"198.51.100.1","count":9223372036854775807,"last":"2026-01-01T00:00:00Z"},{"vip":"","count":1,"last":"2026-01-01T00:00:00Z"}],
"drains":[{"pool":"lb7","member":"lb7-1","since":"9999-01-01T00:00:00Z"}],
"sysctls":[{"key":"net.//.//.//.etc.passwd","value":"1","was":"0"},{"key":"kernel.panic","value":"0","was":"1"},
{"key":"net.ipv4.conf.eth0.accept_local","value":"1","was":"0"}]}`
	if err := os.WriteFile(filepath.Join(dir, "lb4d.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := recall(dir)
	if err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Fatalf("error %v, want one line", err)
	}
	for _, want := range []string{"passed over", `"fe80::1%eth0"`, `"kernel.panic"`, "check_mark 4294967295", "see whether the file is another host's"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, want %q in it", err, want)
		}
	}
	good := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}
	if diff := cmp.Diff(good, m.owned, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("owned (-want +got):\n%s", diff)
	}
	borrowed := []tunnel.SysctlChange{{Sysctl: tunnel.Sysctl{Key: "net.ipv4.conf.eth0.accept_local", Value: "1"}, Was: "0"}}
	if diff := cmp.Diff(borrowed, m.borrowed); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
	if m.marks != 0 || len(m.left) != 0 || len(m.flaps) != 1 || m.flaps[good[0]].Count > maxFlaps || !m.unsaved {
		t.Errorf("marks %d, left %v, flaps %v, unsaved %v", m.marks, m.left, m.flaps, m.unsaved)
	}
	for name, drain := range m.drains {
		if drain.Since.After(time.Now()) {
			t.Errorf("%v drains since %s, which is yet to come", name, drain.Since)
		}
	}
	if err := m.save(m.drains); err != nil {
		t.Fatal(err)
	}
	if _, err := recall(dir); err != nil {
		t.Errorf("after a save there is still %v", err)
	}
}

// TestRecallForeignAddress: a VIP of the state file that the configuration does
// not have may be removed from the host and never added to it: it could be the
// address of a peer.
func TestRecallForeignAddress(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	foreign := netip.MustParseAddr("192.0.2.254")
	d.memory.left = append(d.memory.left, foreign)
	if err := d.memory.own(append(d.memory.owned, foreign)); err != nil {
		t.Fatal(err)
	}
	d = w.restarts(t, d, cfg)
	w.since()
	d.pass()
	if got := w.since(); strings.Contains(got, foreign.String()) {
		t.Errorf("done:\n%s", got)
	}
	if len(w.addresses) != 1 {
		t.Errorf("the host has %v, want the VIP alone", w.addresses)
	}
}
