package daemon

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"lb4d/bgp"
	"lb4d/plan"
)

// bootID is another one after each boot, random(4).
const bootID = "/proc/sys/kernel/random/boot_id"

// boot names the present boot; empty: nobody knows.
func boot() string {
	id, err := os.ReadFile(bootID)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// inherit finds out what becomes of the routes that the process before has left
// with the peers, before anything is touched, and tells it.
func (d *Daemon) inherit() {
	before := plan.Before{
		Announced: d.memory.left,
		Booted:    d.memory.boot == "" || d.memory.boot != boot(),
	}
	if before.Listed, before.Err = d.table.ListVIPs(d.owns(vipsOf(d.cfg))); before.Err == nil {
		before.Addresses, before.Err = d.host.Addresses()
	}
	d.kept = plan.Keep(d.cfg, before)
	if d.kept.IPv4 || d.kept.IPv6 {
		d.log.Info("routes kept through the restart", "families", preserved(d.kept), "reason", d.kept.Reason)
	} else {
		d.log.Info("no routes kept through a restart", "reason", d.kept.Reason)
	}
}

// preserved is what the speaker says of the restart.
func preserved(k plan.Kept) bgp.Families {
	var f bgp.Families
	if k.IPv4 {
		f |= bgp.IPv4
	}
	if k.IPv6 {
		f |= bgp.IPv6
	}
	return f
}

// late tells that the peers have kept routes for so long that the first answers
// of the checks are waited for no more.
func (d *Daemon) late(now time.Time) bool {
	return !d.settled && len(d.kept.VIPs) > 0 && now.Sub(d.started) >= plan.Deferral(d.cfg)
}

// sessionsDue tells that the sessions are to come up although nothing has been
// decided yet: the peers have routes that nobody forwards, and drop them with
// the first session.
func (d *Daemon) sessionsDue(late bool) bool {
	return !d.settled && (late || d.kept.Left && len(d.kept.VIPs) == 0)
}

// keptNow are the VIPs that plan may take for announced, although the speaker
// does not list them yet.
func (d *Daemon) keptNow(late bool) map[netip.Addr]bool {
	if !late {
		return nil
	}
	return d.kept.VIPs
}

// linger has the table of VIPs that left the configuration stay until the peers
// have heard of the withdrawal, as it would after a reload: what the process
// before has announced may stand with them until the first sessions are up.
func (d *Daemon) linger(now time.Time) {
	if d.settled {
		return
	}
	for _, vip := range d.memory.left {
		d.memory.lastAnnounced[vip] = now
	}
}

// handOver ends the loop with everything left as it is.
func (d *Daemon) handOver() {
	d.handedOver = true
	keep, lose := 0, []string{}
	for _, p := range d.peers.Peers() {
		switch {
		case p.State != "established":
		case p.GracefulRestart > 0:
			keep++
		default:
			lose = append(lose, p.Name)
		}
	}
	told := []any{"announced", len(d.memory.announced), "peers_that_keep_routes", keep}
	if len(lose) > 0 {
		d.log.Warn("handing over; some peers do not keep the routes meanwhile", append(told, "peers_that_do_not", few(lose))...)
		return
	}
	d.log.Info("handing over; the routes stay", told...)
}

// leave notes which VIPs are announced, for the process after this one. Should
// this one die before that is written, the list is the one of a pass ago. Either
// way the next process looks at the kernel before it says anything of them.
func (m *memory) leave(announced map[netip.Addr]bool) {
	vips := slices.SortedFunc(maps.Keys(announced), netip.Addr.Compare)
	if now := boot(); !slices.Equal(vips, m.left) || now != m.boot {
		m.left, m.boot, m.unsaved = vips, now, true
	}
}
