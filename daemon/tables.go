package daemon

import (
	"slices"

	"lb4d/control"
	"lb4d/l4"
	"lb4d/plan"
)

// knownTable is what was found out of the Maglev table of a service. To fill
// one takes thousands of steps, and a pass comes at least every second: it is
// done again only where the service is another.
type knownTable struct {
	of    l4.Service
	shown control.Table
}

// maglevs are the tables of those configured services that the kernel lists
// with the scheduler mh.
func (d *Daemon) maglevs(listed l4.Table) map[l4.Key]control.Table {
	pools := plan.Pools(d.cfg)
	known := make(map[l4.Key]knownTable, len(pools))
	shown := make(map[l4.Key]control.Table, len(pools))
	for _, s := range listed {
		if _, ours := pools[s.Key]; !ours || s.Scheduler != "mh" {
			continue
		}
		k, ok := d.tables[s.Key]
		if !ok || !sameTable(k.of, s) {
			k = knownTable{of: s, shown: showTable(s)}
		}
		known[s.Key], shown[s.Key] = k, k.shown
	}
	if len(listed) > 0 {
		d.tables = known // one failed read-back is no reason to forget
	}
	return shown
}

// sameTable tells that two states of a service have the same table: they
// differ in nothing but the flows that they carry.
func sameTable(a, b l4.Service) bool {
	return a.Scheduler == b.Scheduler && a.Flags == b.Flags &&
		slices.EqualFunc(a.Destinations, b.Destinations, func(a, b l4.Destination) bool {
			a.ActiveConns, a.InactiveConns = b.ActiveConns, b.InactiveConns
			return a == b
		})
}

func showTable(s l4.Service) control.Table {
	t := control.Table{VIP: s.VIP.String(), Port: s.Port, Protocol: s.Protocol.String()}
	m, err := l4.NewMaglev(s)
	if err != nil {
		t.Error = oneLine(err)
		return t
	}
	t.Fingerprint = m.Fingerprint()
	return t
}
