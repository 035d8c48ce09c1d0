package daemon

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
	"lb4d/tunnel"
)

// maxFault bounds the words of a check that has no way, in bytes.
const maxFault = 200

// probing is what the loop keeps of the checks.
type probing struct {
	// marks are the firewall marks of the targets that are checked through the
	// tunnel.
	marks map[health.Target]uint32
	// ways are the last that the host was found to have.
	ways map[tunnel.Probe]tunnel.Way
	// left are the services of the marks as they were left; nil: nothing yet.
	left l4.Table
	// presumed are the targets that the kernel was found to send new flows to
	// when the first probes began, of VIPs whose routes the peers had kept.
	presumed map[health.Target]bool
	// given is what the observer was given last; nil: nothing yet.
	given map[health.Target]health.Check
	// compared is when all of it was last compared with the kernel, for the
	// configuration cfg.
	compared time.Time
	cfg      *config.Config
	// errs are what failed then.
	errs []error
}

// probe makes the way of the checks that go through the tunnel, as far as it is
// not there, and has the observer probe by it. No probe of a target starts before
// the service of its mark is in the kernel, since it would be answered by
// whichever member IPVS chooses.
//
// It ends each pass, and compares with the kernel about once a second: it asks
// for each member, while changes of the members come in bursts and make passes of
// their own.
//
// While the first answers are waited for, it alone writes to
// the kernel, and nothing that a user's packet could meet: the VIPs that are
// probed become local, because a packet of this host needs a route, and the
// routers do not send users' packets for them as long as they are not announced.
func (d *Daemon) probe(waiting bool) []error {
	if d.probing.cfg != d.cfg || time.Since(d.probing.compared) >= resync/2 {
		d.probing.cfg, d.probing.compared, d.probing.errs = d.cfg, time.Now(), nil
		d.lead(waiting, func(err error) {
			if err != nil {
				d.probing.errs = append(d.probing.errs, err)
			}
		})
	}
	return d.probing.errs
}

// lead is what probe does about once a second. What fails goes to note.
func (d *Daemon) lead(waiting bool, note func(error)) {
	targets := plan.Targets(d.cfg)
	led := map[health.Target]tunnel.Probe{}
	for target, check := range targets {
		if check.Through != nil {
			led[target] = tunnel.Probe{Member: target.Addr, VIP: check.Through.VIP}
		}
	}
	if len(led) == 0 {
		// The observer lets go of the marks first.
		d.give(targets)
		note(d.unlead())
		return
	}
	if waiting {
		d.probedVIPs(led, note)
	}
	faults := d.ways(led, note)
	unserved := d.markServices(targets, note)
	for target, check := range targets {
		probe, ok := led[target]
		if !ok {
			continue
		}
		check.Through.Mark = d.probing.marks[target]
		way, known := d.probing.ways[probe]
		check.Through.Source = way.Source
		switch {
		case unserved[target] != nil:
			check.Through.Fault = faultWords(unserved[target])
		case !known:
			check.Through.Fault = faultWords(faults[probe])
		}
	}
	d.give(targets)
}

// give has the observer probe the targets.
func (d *Daemon) give(targets map[health.Target]health.Check) {
	if d.probing.given == nil {
		// Where the table cannot be read nothing is presumed; the pass tells why.
		listed, _ := d.table.ListVIPs(d.owns(vipsOf(d.cfg)))
		d.probing.presumed = plan.Carrying(d.cfg, listed)
		// Where the routes went, nothing is announced before its members have
		// answered: it is a start like any other.
		maps.DeleteFunc(d.probing.presumed, func(target health.Target, _ bool) bool {
			return target.IPv6() && !d.kept.IPv6 || !target.IPv6() && !d.kept.IPv4
		})
	}
	// One that comes back by a later reload has been out of sight.
	maps.DeleteFunc(d.probing.presumed, func(target health.Target, _ bool) bool {
		_, stays := targets[target]
		return !stays
	})
	for target, check := range targets {
		check.PresumedUp = d.probing.presumed[target]
		targets[target] = check
	}
	if d.probing.given == nil || !reflect.DeepEqual(targets, d.probing.given) {
		d.probing.given = targets
		d.health.Set(targets)
	}
}

// faultWords is an error as a check's answer shows it.
func faultWords(err error) string {
	words := oneLine(err)
	if len(words) > maxFault {
		words = words[:maxFault-3] + "..."
	}
	return words
}

// probedVIPs makes those VIPs local that are not yet.
func (d *Daemon) probedVIPs(led map[health.Target]tunnel.Probe, note func(error)) {
	addresses, err := d.host.Addresses()
	if err != nil {
		note(err)
		return
	}
	wanted := slices.Clone(addresses)
	for _, probe := range led {
		if !slices.Contains(wanted, probe.VIP) {
			wanted = append(wanted, probe.VIP)
		}
	}
	slices.SortFunc(wanted, netip.Addr.Compare)
	ops := tunnel.DiffAddresses(addresses, wanted)
	if len(ops) > 0 {
		note(d.memory.own(append(slices.Clone(d.memory.owned), wanted...)))
	}
	d.counters.KernelWrites += uint64(d.move(ops, false, note))
}

// ways finds out how the members are reached and sets the sysctls that let the
// answers in. Of a probe that has no way at the moment it returns why; it keeps
// the way that it had, and fails by itself.
func (d *Daemon) ways(led map[health.Target]tunnel.Probe, note func(error)) map[tunnel.Probe]error {
	var probes []tunnel.Probe
	wanted := map[tunnel.Probe]bool{}
	for _, probe := range led {
		if !wanted[probe] {
			wanted[probe] = true
			probes = append(probes, probe)
		}
	}
	slices.SortFunc(probes, tunnel.Probe.Compare)
	path, err := d.host.ProbePath(probes)
	note(err)
	ways := make(map[tunnel.Probe]tunnel.Way, len(probes))
	for probe := range wanted {
		if way, ok := d.probing.ways[probe]; ok {
			ways[probe] = way
		}
	}
	for probe, way := range path.Ways {
		ways[probe] = way
	}
	d.probing.ways = ways

	if len(path.Sysctls) > 0 {
		present, err := d.sysctls.Read(path.Sysctls)
		note(err)
		// Noted before set: should the process die in between, a later one
		// finds that the value is not the one that was to be set.
		note(d.memory.borrow(tunnel.DiffSysctls(present, path.Sysctls)))
		changes, err := d.sysctls.Apply(path.Sysctls)
		note(err)
		d.tellSysctls("checks' sysctls", false, changes)
	}
	return path.Faults
}

var errUnserved = errors.New("the IPVS service of the check's mark is not in the kernel")

// markServices makes the services of the marks as they should be. It returns the
// targets whose service is not, and why.
func (d *Daemon) markServices(targets map[health.Target]health.Check, note func(error)) map[health.Target]error {
	unserved := map[health.Target]error{}
	all := func(err error) map[health.Target]error {
		note(err)
		for target, check := range targets {
			// What served a moment ago is taken to serve still: it is not
			// known to be gone.
			before := d.probing.given[target].Through
			if check.Through != nil && (before == nil || before.Fault != "") {
				unserved[target] = err
			}
		}
		return unserved
	}
	if d.memory.marks != 0 && d.memory.marks != d.cfg.CheckMark {
		if err := d.dropMarks(); err != nil {
			return all(err)
		}
	}
	// Ours before they are there, as with the VIPs.
	note(d.memory.useMarks(d.cfg.CheckMark))
	listed, err := d.listMarks()
	if err != nil {
		return all(err)
	}
	d.probing.marks = plan.Marks(d.cfg, targets, d.probing.marks, listed)
	wanted := plan.MarkTable(d.cfg, targets, d.probing.marks)
	ops := l4.Diff(listed, wanted)
	foreign := d.probing.left != nil && len(l4.Diff(listed, d.probing.left)) > 0
	d.report.tell(d.log, "checks", foreign, sentences(ops))
	if d.probing.left = listed; len(ops) == 0 {
		return unserved
	}
	applied, err := d.table.Apply(ops)
	note(err)
	d.counters.KernelWrites += uint64(applied)
	if listed, err = d.listMarks(); err != nil {
		return all(err)
	}
	d.probing.left = listed
	missing := map[l4.Key]bool{}
	for _, s := range wanted {
		i := slices.IndexFunc(listed, func(l l4.Service) bool { return l.Key == s.Key })
		missing[s.Key] = i < 0 || len(l4.Diff(listed[i:i+1], l4.Table{s})) > 0
	}
	for target, check := range targets {
		if check.Through != nil && missing[l4.MarkKey(d.probing.marks[target], check.Through.VIP.Is6())] {
			unserved[target] = errUnserved
		}
	}
	return unserved
}

// listMarks lists the services of the marks that are noted as ours.
func (d *Daemon) listMarks() (l4.Table, error) {
	return d.table.ListMarks(d.memory.marks, d.memory.marks+config.CheckMarks-1)
}

// dropMarks removes the services of the marks.
func (d *Daemon) dropMarks() error {
	listed, err := d.listMarks()
	if err != nil {
		return err
	}
	ops := l4.Diff(listed, nil)
	d.report.tell(d.log, "checks", false, sentences(ops))
	if len(ops) > 0 {
		applied, err := d.table.Apply(ops)
		d.counters.KernelWrites += uint64(applied)
		if err != nil {
			return err
		}
	}
	d.probing.marks, d.probing.left = nil, nil
	return d.memory.useMarks(0)
}

// unlead takes away what the checks through the tunnel needed, as far as it was
// ours: the services of the marks, and sysctls that still have the value that
// was set. The VIPs and what users' packets need stay.
func (d *Daemon) unlead() error {
	var errs []error
	if d.memory.marks != 0 {
		errs = append(errs, d.dropMarks())
	}
	if len(d.memory.borrowed) > 0 {
		changes, err := d.sysctls.Restore(d.memory.borrowed)
		d.tellSysctls("checks' sysctls", false, changes)
		if err == nil {
			err = d.memory.returned()
		}
		errs = append(errs, err)
	}
	d.probing.ways = nil
	return errors.Join(errs...)
}

// leave ends the checks and undoes what they needed. It is for an end for good,
// and not for one after which another process goes on checking: that one adopts
// what it finds, as after a crash.
func (d *Daemon) leave() {
	d.health.Close()
	if err := d.unlead(); err != nil {
		d.log.Warn("what the checks needed is left in part", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}
