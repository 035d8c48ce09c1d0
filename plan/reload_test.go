package plan

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"lb4d/config"
	"lb4d/health"
)

// TestReload: members that nobody has asked yet are taken to be up, those that
// have answered are not; and what leaves is gone at once.
func TestReload(t *testing.T) {
	const text = `
[bgp]
as = 65000
router_id = "192.0.2.132"
[bgp.peer.rr1]
address = "192.0.2.254"
[pool.lb7]
member.lb7-1.address = "192.0.2.139"
member.lb7-2.address = "192.0.2.140"
[pool.lb7.check]
http = "/healthcheck"
[service.www]
vips = ["198.51.100.1"]
ports = ["80/tcp"]
pool = "lb7"
`
	cfg, err := config.Parse("lb4d.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2024, 5, 17, 3, 12, 45, 0, time.UTC)
	old, vip := netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("198.51.100.1")
	down := health.Target{Pool: "lb7", Member: "lb7-1", Addr: netip.MustParseAddr("192.0.2.139")}
	obs := Observations{
		Now:           now,
		Health:        map[health.Target]health.Status{down: {State: health.Down, FailingSince: now, LastAnswer: "connection refused"}},
		Announced:     map[netip.Addr]bool{old: true},
		LastAnnounced: map[netip.Addr]time.Time{old: now},
		Owned:         []netip.Addr{vip, old},
	}
	d := Reload(cfg, obs)
	if d.Waiting != 0 || len(d.VIPs) != 1 || d.VIPs[0].State != Announced || !strings.Contains(d.VIPs[0].Reason, "1 of 2 members") {
		t.Errorf("got %d checks to wait for and the VIPs %+v, want one announced by the member that joins", d.Waiting, d.VIPs)
	}
	if len(d.Table) != 1 || d.Table[0].VIP != vip || len(d.Table[0].Destinations) != 1 || len(d.Addresses) != 1 {
		t.Errorf("got the table %+v, want the new VIP alone with the member that joins", d.Table)
	}
	if len(obs.Health) != 1 || len(obs.Announced) != 1 {
		t.Errorf("the observations were changed: %+v", obs)
	}
	if Reload(cfg, Observations{Now: now}).VIPs[0].State != Announced {
		t.Error("with nothing observed at all: not announced")
	}
}
