package daemon

import (
	"net/netip"
	"slices"
	"time"

	"lb4d/l4"
	"lb4d/tunnel"
)

// left is what a pass has left in the kernel, by its read-back. Where the next
// one finds something else, another program has been there.
type left struct {
	known     bool
	table     l4.Table
	addresses []netip.Addr
}

// changed tells whether the table and the addresses are others than were left.
func (l left) changed(table l4.Table, addresses []netip.Addr) (inTable, inAddresses bool) {
	return l.known && len(l4.Diff(table, l.table)) > 0, l.known && !slices.Equal(addresses, l.addresses)
}

// tellSysctls tells of sysctls that were set, each on a line since each has a
// reason of its own. One that another program sets back all the time is told
// once, and one that it sets to ever another value now and then.
func (d *Daemon) tellSysctls(what string, foreign bool, changes []tunnel.SysctlChange) {
	fresh := d.report.fresh(what, sentences(changes))
	say, msg := d.log.Info, "sysctl set"
	if foreign {
		say, msg = d.log.Warn, "sysctl changed by another program, put right"
	}
	for _, c := range changes {
		if !slices.Contains(fresh, c.String()) {
			continue
		}
		words := []any{"key", c.Key, "was", c.Was, "now", c.Value, "why", c.Why}
		if foreign {
			quota := d.report.quota("sysctl " + c.Key)
			untold, ok := quota.take(time.Now())
			if !ok {
				continue
			}
			words = append(words, quota.words(untold)...)
		}
		say(msg, words...)
	}
	d.counters.KernelWrites += uint64(len(changes))
}
