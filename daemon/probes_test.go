package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
	"lb4d/tunnel"
)

func (w *world) ListMarks(first, last uint32) (l4.Table, error) {
	w.marksListed++
	if w.failMarks != nil {
		return nil, w.failMarks
	}
	table := slices.DeleteFunc(slices.Clone(w.tableNow), func(s l4.Service) bool { return s.FWMark < first || s.FWMark > last })
	for i := range table {
		table[i].Destinations = slices.Clone(table[i].Destinations)
	}
	return table, nil
}

const acceptLocal = "net.ipv4.conf.uplink.accept_local"

// source is the world's own address.
var source = netip.MustParseAddr("192.0.2.132")

// ProbePath has all members behind one uplink.
func (w *world) ProbePath(probes []tunnel.Probe) (tunnel.Path, error) {
	p := tunnel.Path{Ways: map[tunnel.Probe]tunnel.Way{}, Faults: map[tunnel.Probe]error{}}
	var errs []error
	for _, probe := range probes {
		if err := w.faults[probe]; err != nil {
			p.Faults[probe], errs = err, append(errs, err)
			continue
		}
		p.Ways[probe] = tunnel.Way{Device: "uplink", MTU: 1520, Source: source}
	}
	if w.sysctlNow[acceptLocal] != "1" {
		p.Sysctls = append(p.Sysctls, tunnel.Sysctl{Key: acceptLocal, Value: "1", Why: "answers"})
	}
	return p, errors.Join(errs...)
}

// settings are the world's sysctls.
type settings struct{ *world }

func (s settings) Read(wanted []tunnel.Sysctl) (map[string]string, error) {
	present := map[string]string{}
	for _, key := range wanted {
		present[key.Key] = "0"
		if now, ok := s.sysctlNow[key.Key]; ok {
			present[key.Key] = now
		}
	}
	return present, nil
}

// setSysctl sets one.
func (w *world) setSysctl(c tunnel.SysctlChange) {
	w.did("%s", c)
	if w.sysctlNow == nil {
		w.sysctlNow = map[string]string{}
	}
	w.sysctlNow[c.Key] = c.Value
}

// Apply leaves out those of net.ipv4.vs, which are as they should be.
func (s settings) Apply(wanted []tunnel.Sysctl) ([]tunnel.SysctlChange, error) {
	wanted = slices.DeleteFunc(slices.Clone(wanted), func(s tunnel.Sysctl) bool { return strings.HasPrefix(s.Key, "net.ipv4.vs.") })
	present, err := s.Read(wanted)
	changes := tunnel.DiffSysctls(present, wanted)
	for _, c := range changes {
		s.setSysctl(c)
	}
	return changes, err
}

func (s settings) Restore(changes []tunnel.SysctlChange) ([]tunnel.SysctlChange, error) {
	var done []tunnel.SysctlChange
	for _, c := range changes {
		if s.sysctlNow[c.Key] == c.Value {
			back := tunnel.SysctlChange{Sysctl: tunnel.Sysctl{Key: c.Key, Value: c.Was}, Was: c.Value}
			s.setSysctl(back)
			done = append(done, back)
		}
	}
	return done, nil
}

// tunnelConfig is the least configuration: its checks go through the tunnel.
var tunnelConfig = strings.Replace(leastConfig, "via = \"direct\"\n", "", 1)

const (
	mark1, mark2 = 0x4c420000, 0x4c420001
	led          = `
add address 198.51.100.1/32 to lb-vips
net.ipv4.conf.uplink.accept_local = 1 (was 0)
add service fwmark 1279393792 scheduler rr
add destination fwmark 1279393792 -> 192.0.2.139:0 weight 1 ipip
add service fwmark 1279393793 scheduler rr
add destination fwmark 1279393793 -> 192.0.2.140:0 weight 1 ipip
`
)

// throughs shows the checks that the observer was given.
func (w *world) throughs() string {
	var lines []string
	for target, check := range w.given {
		way := "directly"
		if t := check.Through; t != nil {
			way = fmt.Sprintf("to %s from %s with mark %d, overhead %d%s", t.VIP, t.Source, t.Mark, t.Overhead, strings.TrimSuffix(" fault: "+t.Fault, " fault: "))
		}
		lines = append(lines, target.Addr.String()+" "+way)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// later is a pass after a second.
func later(d *Daemon) {
	time.Sleep(resync)
	d.pass()
}

const straightThrough = `
192.0.2.139 to 198.51.100.1 from 192.0.2.132 with mark 1279393792, overhead 20
192.0.2.140 to 198.51.100.1 from 192.0.2.132 with mark 1279393793, overhead 20
`

// TestProbes: what the checks need is there before the first of them, is kept,
// is put right, and is undone at the end and no sooner.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, tunnelConfig)
		w, d := newWorld(t, cfg)

		later(d)
		expect(t, "before the checks have answered", w.since(), led)
		expect(t, "checks", w.throughs(), straightThrough)
		for target, check := range w.given {
			if check.PresumedUp {
				t.Errorf("%s is presumed up, and nobody knows of it", target)
			}
		}
		if w.status.State != "starting" {
			t.Errorf("state %q, want starting", w.status.State)
		}
		later(d)
		expect(t, "again", w.since(), "")

		w.are(cfg, health.Up)
		later(d)
		expect(t, "all up", w.since(), strings.Replace(built, "add address 198.51.100.1/32 to lb-vips\n", "", 1))

		// Another process, after this one was killed.
		_, next := newWorld(t, cfg)
		next.health, next.table, next.host, next.sysctls = observed{w}, w, w, d.sysctls
		next.routes, next.peers, next.show = w, w, d.show
		var err error
		if next.memory, err = recall(filepath.Dir(d.memory.path)); err != nil {
			t.Fatal(err)
		}
		w.given = nil
		next.kept = plan.Kept{IPv4: true}
		later(next)
		expect(t, "after kill -9 and start", w.since(), "")
		expect(t, "checks after kill -9 and start", w.throughs(), straightThrough)
		for target, check := range w.given {
			if !check.PresumedUp {
				t.Errorf("%s took flows when the process before was killed, and is not presumed up", target)
			}
		}

		// ipvsadm -C; sysctl -w
		w.tableNow = slices.DeleteFunc(w.tableNow, func(s l4.Service) bool { return s.FWMark != 0 })
		w.sysctlNow[acceptLocal] = "0"
		later(next)
		expect(t, "what another hand took", w.since(), strings.Replace(led, "add address 198.51.100.1/32 to lb-vips\n", "", 1))

		// The table that users' packets meet stays.
		forwarding := slices.Clone(w.tableNow[:1])
		next.leave()
		expect(t, "the end", w.since(), `
delete service fwmark 1279393792
delete service fwmark 1279393793
net.ipv4.conf.uplink.accept_local = 0 (was 1)
`)
		if len(w.tableNow) != 1 || w.tableNow[0].Key != forwarding[0].Key || len(w.addresses) != 1 {
			t.Errorf("left are the table %v and the addresses %v, want the VIP with its service", w.tableNow, w.addresses)
		}
		if m, err := recall(filepath.Dir(d.memory.path)); err != nil || m.marks != 0 || len(m.borrowed) != 0 {
			t.Errorf("the state file has marks from %d and sysctls %v (%v), want none", m.marks, m.borrowed, err)
		}
	})
}

// TestProbesOfAReload: checks that cease to go through the tunnel leave nothing
// of it, a value that somebody set meanwhile stays, and another tool's mark does.
func TestProbesOfAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, tunnelConfig)
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		foreign := l4.Service{Key: l4.MarkKey(7, false), Scheduler: "rr"}
		w.tableNow = append(w.tableNow, foreign)
		later(d)
		w.since()

		// The first member goes, a third comes: the second one's service stays.
		d.cfg = parse(t, strings.Replace(tunnelConfig, `members = ["192.0.2.139", `, `members = ["192.0.2.150", `, 1))
		w.are(d.cfg, health.Up)
		later(d)
		for line := range strings.Lines(w.since()) {
			if strings.Contains(line, "fwmark") && strings.Contains(line, fmt.Sprint(mark2)) {
				t.Errorf("done: %s", line)
			}
		}
		if got := w.throughs(); !strings.Contains(got, fmt.Sprintf("192.0.2.140 to 198.51.100.1 from 192.0.2.132 with mark %d,", mark2)) ||
			!strings.Contains(got, fmt.Sprintf("192.0.2.150 to 198.51.100.1 from 192.0.2.132 with mark %d,", mark1)) {
			t.Errorf("checks:\n%s", got)
		}

		// The VIP goes, another comes: it is local before it is probed.
		d.cfg = parse(t, strings.Replace(tunnelConfig, "198.51.100.1", "198.51.100.2", 1))
		w.are(d.cfg, health.Unknown)
		later(d)
		if !slices.Contains(w.addresses, netip.MustParseAddr("198.51.100.2")) || !strings.Contains(w.throughs(), "to 198.51.100.2 ") {
			t.Errorf("addresses %v, checks:\n%s", w.addresses, w.throughs())
		}
		w.since()

		w.sysctlNow[acceptLocal] = "2"
		d.cfg = parse(t, strings.Replace(leastConfig, "198.51.100.1", "198.51.100.2", 1))
		w.given = nil
		later(d)
		got := w.since()
		if strings.Count(got, "delete service fwmark") != 2 || strings.Contains(got, acceptLocal) {
			t.Errorf("done:\n%s\nwant two services of marks deleted, and no sysctl set back that somebody has set", got)
		}
		expect(t, "checks", w.throughs(), "192.0.2.139 directly\n192.0.2.140 directly")
		if !slices.ContainsFunc(w.tableNow, func(s l4.Service) bool { return s.Key == foreign.Key }) {
			t.Error("another tool's service of a mark was removed")
		}
	})
}

// TestProbesOfOtherMarks: a start with another check_mark takes away the
// services that an earlier process left.
func TestProbesOfOtherMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, tunnelConfig)
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		later(d)
		w.since()
		d.cfg = parse(t, "check_mark = 500\n"+tunnelConfig)
		var err error
		if d.memory, err = recall(filepath.Dir(d.memory.path)); err != nil {
			t.Fatal(err)
		}
		later(d)
		expect(t, "with another check_mark", w.since(), `
delete service fwmark 1279393792
delete service fwmark 1279393793
add service fwmark 500 scheduler rr
add destination fwmark 500 -> 192.0.2.139:0 weight 1 ipip
add service fwmark 501 scheduler rr
add destination fwmark 501 -> 192.0.2.140:0 weight 1 ipip
`)
		if err := needsRestart(cfg, d.cfg); err == nil || !strings.Contains(err.Error(), "check_mark: cannot change from 1279393792 to 500") {
			t.Errorf("a reload with another check_mark: %v", err)
		}
	})
}

// TestProbesWithoutAWay: a check without a way fails in words, and is never made
// where another member might answer it. A way that was there a moment ago is
// taken to be there.
func TestProbesWithoutAWay(t *testing.T) {
	cfg := parse(t, tunnelConfig)
	noRoute := map[tunnel.Probe]error{
		{Member: netip.MustParseAddr("192.0.2.139"), VIP: netip.MustParseAddr("198.51.100.1")}: errors.New("network is unreachable"),
	}
	fault := func(w *world, member string) string {
		for target, check := range w.given {
			if target.Addr.String() == member {
				return check.Through.Fault
			}
		}
		return "not checked"
	}
	for _, tt := range []struct {
		name        string
		fail        func(*world)
		first, then string // the faults at the start, and later on
	}{
		{"no route", func(w *world) { w.faults = noRoute }, "network is unreachable", ""},
		{"the service cannot be added", func(w *world) {
			w.failApply = func(op l4.Op) error {
				if a, ok := op.(l4.AddService); ok && a.FWMark == mark1 {
					return errors.New("no scheduler rr")
				}
				if a, ok := op.(l4.AddDestination); ok && a.FWMark == mark1 {
					return errors.New("the service is gone")
				}
				return nil
			}
		}, errUnserved.Error(), ""},
		{"the table cannot be read", func(w *world) { w.failMarks = errors.New("no buffer space") }, "no buffer space", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, d := newWorld(t, cfg)
			tt.fail(w)
			later(d)
			if got := fault(w, "192.0.2.139"); got != tt.first {
				t.Errorf("%s, at the start: fault %q, want %q", tt.name, got, tt.first)
			}
			if len(w.status.Errors) == 0 {
				t.Errorf("%s: the status tells of no error", tt.name)
			}
			told := slices.Clone(w.status.Errors)
			d.pass()
			if !slices.Equal(w.status.Errors, told) || strings.Contains(w.log.String(), "pass complete again") {
				t.Errorf("%s: a pass at once tells of the errors %q, the one before of %q", tt.name, w.status.Errors, told)
			}
			w.failMarks, w.failApply, w.faults = nil, nil, nil
			later(d)
			if got := fault(w, "192.0.2.139"); got != "" || len(w.status.Errors) > 0 {
				t.Errorf("%s, when it is over: fault %q, errors %q", tt.name, got, w.status.Errors)
			}
			tt.fail(w)
			later(d)
			if got := fault(w, "192.0.2.139"); got != tt.then {
				t.Errorf("%s, later: fault %q, want %q", tt.name, got, tt.then)
			}
		})
	}

	// The service is taken away and cannot be added again.
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld(t, cfg)
		later(d)
		w.tableNow = nil
		w.failApply = func(l4.Op) error { return errors.New("no") }
		later(d)
		if got := fault(w, "192.0.2.139"); got != errUnserved.Error() {
			t.Errorf("fault %q, want %q", got, errUnserved)
		}
	})
}

// TestProbesInABurst: the kernel is asked for the ways about once a second, and
// at once where the configuration is another.
func TestProbesInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld(t, parse(t, tunnelConfig))
		later(d) // lists before and after
		w.marksListed = 0
		for range 10 {
			time.Sleep(resync / 10)
			d.pass()
		}
		if w.marksListed != 2 {
			t.Errorf("in a second with ten passes the services were listed %d times, want twice", w.marksListed)
		}
		d.cfg = parse(t, leastConfig)
		d.pass()
		if got := w.throughs(); !strings.Contains(got, "192.0.2.139 directly") {
			t.Errorf("the pass after a reload left the checks as they were:\n%s", got)
		}
	})
}

// TestBorrowedSysctls: what they were before counts from the last value that was
// not ours, and is on disk before anything is set.
func TestBorrowedSysctls(t *testing.T) {
	m, err := recall(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const a, b = "net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.eth1.rp_filter"
	change := func(key, was string) tunnel.SysctlChange {
		return tunnel.SysctlChange{Sysctl: tunnel.Sysctl{Key: key, Value: "1"}, Was: was}
	}
	// The last one is that of a pass that has found nothing to set.
	for _, changes := range [][]tunnel.SysctlChange{{change(a, "0"), change(b, "0")}, {change(a, "2")}, nil} {
		if err := m.borrow(changes); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	read, err := recall(filepath.Dir(m.path))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range read.borrowed {
		got[c.Key] = c.Value + " was " + c.Was
	}
	if want := map[string]string{a: "1 was 2", b: "1 was 0"}; !maps.Equal(got, want) {
		t.Errorf("after a restart %v, want %v", got, want)
	}
}

// TestPresumedOnce: a member that leaves the configuration and comes back has been
// out of sight, and is presumed to be nothing. So are all where routes went.
func TestPresumedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := parse(t, leastConfig)
		one := parse(t, strings.Replace(leastConfig, `, "192.0.2.140"`, "", 1))
		if len(both.Pools[0].Members) != 2 || len(one.Pools[0].Members) != 1 {
			t.Fatal("the configurations have not two members and one")
		}
		w, d := newWorld(t, both)
		w.are(both, health.Up)
		later(d)
		// The process before has left what this one has just made.
		d.probing, w.given = probing{}, nil
		presumed := func() string {
			later(d)
			var names []string
			for target, check := range w.given {
				if check.PresumedUp {
					names = append(names, target.Addr.String())
				}
			}
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		expect(t, "at a start after which no routes are left", presumed(), "")
		d.probing, w.given = probing{}, nil
		d.kept = plan.Kept{IPv6: true}
		expect(t, "where those of the other family are left", presumed(), "")
		d.probing, w.given = probing{}, nil
		d.kept = plan.Kept{IPv4: true}
		expect(t, "at the start", presumed(), "192.0.2.139 192.0.2.140")
		d.cfg = one
		expect(t, "without the second", presumed(), "192.0.2.139")
		d.cfg = both
		expect(t, "with it again", presumed(), "192.0.2.139")
	})
}

// TestWarning: a member that lacks room for full-size packets takes flows all
// the same, and status says what is wrong.
func TestWarning(t *testing.T) {
	cfg := parse(t, tunnelConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	for target, st := range w.statuses {
		if target.Addr.String() == "192.0.2.139" {
			st.MTU, st.MTUAnswer, st.MTUSince = health.MTUFailed, "full-size packets get lost", time.Now()
			w.statuses[target] = st
		}
	}
	later(d)
	m := w.status.Members[0]
	if m.State != "up" || m.Weight != 1 || m.Warning != "full-size packets get lost" || m.FullSize != "failed" || m.CheckedVIP != "198.51.100.1" {
		t.Errorf("status shows %+v", m)
	}
	if !strings.Contains(w.status.Summary, "2 of 2 members up, 1 with a warning") {
		t.Errorf("summary %q", w.status.Summary)
	}
}
