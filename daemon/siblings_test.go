package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/bgp"
)

// TestSiblings: the routes say the fingerprint, the siblings are in the status,
// and tables that differ for too long are told once, as is their end.
func TestSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, leastConfig)
		said := w.routesNow[0].Fingerprint
		if said == nil || w.status.VIPs[0].Fingerprint == "" {
			t.Fatalf("says %v, status %+v", said, w.status.VIPs[0])
		}
		if v := w.status.VIPs[0]; v.SiblingsKnown != "none" || len(v.Siblings) > 0 {
			t.Errorf("without a session: %+v", v)
		}
		other := *said + 1
		w.peersNow = []bgp.PeerStatus{{Name: "rr1", State: "established", Received: bgp.Received{Tells: bgp.IPv4, All: bgp.IPv4}}}
		w.siblingsNow = []bgp.Sibling{{
			VIP: netip.MustParseAddr("198.51.100.1"), Peer: netip.MustParseAddr("192.0.2.254"),
			RouterID: netip.MustParseAddr("192.0.2.133"), NextHop: netip.MustParseAddr("192.0.2.133"), Since: time.Now(), Fingerprint: said,
		}}
		logged := func() string {
			out := w.log.String()
			w.log.Reset()
			return out
		}
		logged()
		for _, step := range []struct {
			name   string
			tables *uint32
			wait   time.Duration
			tells  string
			shown  string
		}{
			{"the same", said, 0, "", "agree"},
			{"another", &other, 0, "", "differ"},
			{"for a while", &other, 29 * time.Second, "", "differ"},
			{"for too long", &other, time.Second, `level=WARN msg="tables differ from those of other hosts" vips=198.51.100.1 hosts=192.0.2.133`, "differ"},
			{"and on", &other, time.Minute, "", "differ"},
			{"the same again", said, 0, `level=INFO msg="tables agree with those of other hosts again" vips=198.51.100.1`, "agree"},
			{"one that does not say", nil, time.Hour, "", "unknown"},
		} {
			w.siblingsNow[0].Fingerprint = step.tables
			time.Sleep(step.wait)
			d.pass()
			got := logged()
			if step.tells == "" && got != "" || !strings.Contains(got, step.tells) {
				t.Errorf("%s: log %q, want %q", step.name, got, step.tells)
			}
			v := w.status.VIPs[0]
			if v.SiblingsKnown != "all" || len(v.Siblings) != 1 || v.Siblings[0].Tables != step.shown || v.Siblings[0].RouterID != "192.0.2.133" ||
				v.TablesDiffer != (step.name == "for too long" || step.name == "and on") {
				t.Errorf("%s: %+v", step.name, v)
			}
		}
	})
}

// TestSiblingsOff: nothing is said where the configuration says so.
func TestSiblingsOff(t *testing.T) {
	w, _ := announcing(t, strings.Replace(leastConfig, "[bgp]\n", "[bgp]\nsiblings = false\n", 1))
	if w.routesNow[0].Fingerprint != nil {
		t.Errorf("says %x", *w.routesNow[0].Fingerprint)
	}
}
