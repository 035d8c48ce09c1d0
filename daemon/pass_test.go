package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/bfd"
	"lb4d/bgp"
	"lb4d/config"
	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/maintenance"
	"lb4d/plan"
	"lb4d/tunnel"
)

// world is a small host: a kernel table, addresses, routes, checks and a
// maintenance file, and a journal of all that was done to them, in order.
type world struct {
	t       *testing.T
	journal []string
	log     strings.Builder

	mu        sync.Mutex // over the journal and the counters in tableNow
	tableNow  l4.Table
	addresses []netip.Addr
	routesNow []bgp.Route
	// siblingsNow is what the sessions tell of other hosts.
	siblingsNow []bgp.Sibling
	statuses    map[health.Target]health.Status
	file        maintenance.State
	status      *control.Status
	notified    []string
	failList    error
	// failAddresses fails the listing of the addresses.
	failAddresses error
	failApply     func(l4.Op) error
	failRoutes    error
	peersNow      []bgp.PeerStatus
	sessions      int // how many times the peers were set
	// failMarks fails the listing of the services of marks.
	failMarks   error
	marksListed int
	// given are the checks that the observer was given.
	given map[health.Target]health.Check
	// sysctlNow are the sysctls that are not as on any host; faults are the
	// reasons why probes are not possible.
	sysctlNow map[string]string
	faults    map[tunnel.Probe]error
}

func (w *world) did(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.journal = append(w.journal, fmt.Sprintf(format, args...))
}

// since returns the journal and begins a new page.
func (w *world) since() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	page := strings.Join(w.journal, "\n")
	w.journal = nil
	return page
}

// receive has the kernel count n packets more to the first service, while the
// loop may be at work.
func (w *world) receive(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tableNow[0].Received.Packets += n
}

func (w *world) ListVIPs(ours func(netip.Addr) bool) (l4.Table, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	table := slices.DeleteFunc(slices.Clone(w.tableNow), func(s l4.Service) bool { return s.FWMark != 0 || !ours(s.VIP) })
	for i := range table {
		table[i].Destinations = slices.Clone(table[i].Destinations)
	}
	return table, w.failList
}

func (w *world) Received(ours func(netip.Addr) bool) (map[netip.Addr]l4.Received, error) {
	table, err := w.ListVIPs(ours)
	return received(table), err
}

func (w *world) Apply(ops []l4.Op) (applied int, err error) {
	var errs []error
	for _, op := range ops {
		if w.failApply != nil {
			if err := w.failApply(op); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", op, err))
				continue
			}
		}
		w.did("%s", op)
		w.change(op)
		applied++
	}
	return applied, errors.Join(errs...)
}

func (w *world) change(op l4.Op) {
	service := func(key l4.Key) *l4.Service {
		i := slices.IndexFunc(w.tableNow, func(s l4.Service) bool { return s.Key == key })
		if i < 0 {
			w.t.Fatalf("%s: no such service", op)
		}
		return &w.tableNow[i]
	}
	switch op := op.(type) {
	case l4.AddService:
		w.tableNow = append(w.tableNow, l4.Service{Key: op.Key, Scheduler: op.Scheduler, Flags: op.Flags})
	case l4.EditService:
		s := service(op.Key)
		s.Scheduler, s.Flags = op.Scheduler, op.Flags
	case l4.DeleteService:
		w.tableNow = slices.DeleteFunc(w.tableNow, func(s l4.Service) bool { return s.Key == op.Key })
	case l4.AddDestination:
		s := service(op.Key)
		s.Destinations = slices.Insert(s.Destinations, 0, op.Destination)
	case l4.EditDestination:
		s := service(op.Key)
		for i, d := range s.Destinations {
			if d.Addr == op.Destination.Addr {
				s.Destinations[i].Weight, s.Destinations[i].FullWeight = op.Destination.Weight, op.Destination.FullWeight
			}
		}
	case l4.MoveDestination:
		s := service(op.Key)
		s.Destinations = slices.DeleteFunc(s.Destinations, func(d l4.Destination) bool { return d.AddrPort() == op.Destination.AddrPort() })
		moved := op.Destination // with its flows
		moved.ActiveConns, moved.InactiveConns = op.Was.ActiveConns, op.Was.InactiveConns
		s.Destinations = slices.Insert(s.Destinations, 0, moved)
	case l4.DeleteDestination:
		s := service(op.Key)
		s.Destinations = slices.DeleteFunc(s.Destinations, func(d l4.Destination) bool { return d.AddrPort() == op.Destination })
	default:
		w.t.Fatalf("%s: the test's kernel does not know this operation", op)
	}
}

func (w *world) Addresses() ([]netip.Addr, error) {
	if w.failAddresses != nil {
		return nil, w.failAddresses
	}
	return slices.Clone(w.addresses), nil
}

func (w *world) ApplyAddresses(ops []tunnel.AddressOp) (int, error) {
	for _, op := range ops {
		w.did("%s", op)
		if op.Remove {
			w.addresses = slices.DeleteFunc(w.addresses, func(a netip.Addr) bool { return a == op.Addr })
		} else {
			w.addresses = append(w.addresses, op.Addr)
		}
	}
	return len(ops), nil
}

func (w *world) Set(routes []bgp.Route) error {
	if w.failRoutes != nil {
		return w.failRoutes
	}
	find := func(in []bgp.Route, p netip.Prefix) *bgp.Route {
		i := slices.IndexFunc(in, func(r bgp.Route) bool { return r.Prefix == p })
		if i < 0 {
			return nil
		}
		return &in[i]
	}
	for _, r := range routes {
		old := find(w.routesNow, r.Prefix)
		if old == nil || old.Draining != r.Draining || !old.Attributes.Equal(r.Attributes) {
			drain := ""
			if r.Draining {
				drain = " with GRACEFUL_SHUTDOWN"
			}
			w.did("announce %s%s", r.Prefix, drain)
		}
	}
	for _, r := range w.routesNow {
		if find(routes, r.Prefix) == nil {
			w.did("withdraw %s", r.Prefix)
		}
	}
	w.routesNow = slices.Clone(routes)
	return nil
}

func (w *world) Routes() ([]bgp.Route, error) { return slices.Clone(w.routesNow), nil }

func (w *world) SetPeers([]bgp.Peer) error {
	w.sessions++
	return nil
}

func (w *world) Peers() []bgp.PeerStatus { return w.peersNow }
func (w *world) Watch([]netip.Addr)      {}
func (w *world) Siblings() []bgp.Sibling { return w.siblingsNow }

// unwatched are ways that nobody watches.
type unwatched struct{}

func (unwatched) SetPeers([]bfd.Peer) error { return nil }
func (unwatched) Peers() []bfd.Status       { return nil }
func (unwatched) Close()                    {}

// observed is the world's observers.
type observed struct{ *world }

func (o observed) Set(targets map[health.Target]health.Check) { o.given = targets }
func (o observed) Close()                                     {}
func (o observed) Statuses() map[health.Target]health.Status {
	return o.statuses
}

type watched struct{ *world }

func (w watched) Close()                   {}
func (w watched) Refresh()                 {}
func (w watched) State() maintenance.State { return w.file }

const leastConfig = `
[bgp]
as = 65000
router_id = "192.0.2.132"
drain_time = "0s"
[bgp.peer.rr1]
address = "192.0.2.254"
[pool.lb7]
members = ["192.0.2.139", "192.0.2.140"]
[pool.lb7.check]
http = "/healthcheck"
via = "direct"
[service.www]
vips = ["198.51.100.1"]
ports = ["80/tcp"]
pool = "lb7"
`

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("lb4d.toml", []byte(text))
	if err != nil {
		t.Fatalf("parsing the test's configuration:\n%v", err)
	}
	return cfg
}

// newWorld is a daemon in a world where nothing has happened yet.
func newWorld(t *testing.T, cfg *config.Config) (*world, *Daemon) {
	t.Helper()
	w := &world{t: t, statuses: map[health.Target]health.Status{}, file: maintenance.State{Path: "/etc/lb/disable"}}
	d := &Daemon{
		opts: Options{Notify: func(s string) { w.notified = append(w.notified, s) }},
		log:  slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{ReplaceAttr: noTime})),
		cfg:  cfg, wake: make(chan struct{}, 1), readyDue: true, started: time.Now(),
		requests: make(chan request, maxRequests), ended: make(chan struct{}),
		health: observed{w}, maintenance: watched{w}, table: w, host: w, routes: w, peers: w, siblings: w, detect: unwatched{},
		sysctls: settings{w},
		show:    func(st *control.Status) { w.status = st },
	}
	var err error
	if d.memory, err = recall(filepath.Join(t.TempDir(), "state")); err != nil {
		t.Fatal(err)
	}
	return w, d
}

func noTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// are sets the state of every target.
func (w *world) are(cfg *config.Config, state health.State) {
	for target := range plan.Targets(cfg) {
		st := health.Status{State: state, LastAnswer: "200 OK", Since: time.Now()}
		if state == health.Down {
			st.LastAnswer, st.FailingSince = "connection refused", time.Now()
		}
		w.statuses[target] = st
	}
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	lines := func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }
	if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const built = `
add service 198.51.100.1:80/tcp scheduler none flags mh-fallback,mh-port
add destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 ipip
add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip
edit service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port (was scheduler none flags mh-fallback,mh-port)
add address 198.51.100.1/32 to lb-vips
announce 198.51.100.1/32
`

// TestPassOrder: forward first, announce second; withdraw first, remove last;
// and nothing at all where nothing differs.
func TestPassOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, leastConfig)
		w, d := newWorld(t, cfg)

		d.pass()
		expect(t, "before the checks have answered", w.since(), "")
		if w.status.State != "starting" || len(w.notified) != 1 {
			t.Errorf("state %q, notified %q; want starting, and no READY", w.status.State, w.notified)
		}

		w.are(cfg, health.Up)
		d.pass()
		expect(t, "all up", w.since(), built)
		if !slices.Contains(w.notified, "READY=1") {
			t.Errorf("notified %q, want READY=1 after the first complete pass", w.notified)
		}

		d.pass()
		expect(t, "again", w.since(), "")

		w.are(cfg, health.Down)
		d.pass()
		expect(t, "all down", w.since(), `
withdraw 198.51.100.1/32
edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)
edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 0 of 1 ipip (was weight 1 ipip)
`)

		w.are(cfg, health.Up)
		d.pass()
		expect(t, "up again", w.since(), `
edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip (was weight 0 of 1 ipip)
edit destination 198.51.100.1:80/tcp -> 192.0.2.140:80 weight 1 ipip (was weight 0 of 1 ipip)
announce 198.51.100.1/32
`)

		w.file.Present, w.file.Since = true, time.Now()
		d.pass()
		expect(t, "maintenance", w.since(), "withdraw 198.51.100.1/32")
		w.file.Present = false
		d.pass()
		expect(t, "maintenance over", w.since(), "announce 198.51.100.1/32")

		other := parse(t, strings.Replace(leastConfig, "198.51.100.1", "198.51.100.2", 1))
		d.cfg = other
		d.pass()
		expect(t, "another VIP", w.since(), `
withdraw 198.51.100.1/32
add service 198.51.100.2:80/tcp scheduler none flags mh-fallback,mh-port
add destination 198.51.100.2:80/tcp -> 192.0.2.140:80 weight 1 ipip
add destination 198.51.100.2:80/tcp -> 192.0.2.139:80 weight 1 ipip
edit service 198.51.100.2:80/tcp scheduler mh flags mh-fallback,mh-port (was scheduler none flags mh-fallback,mh-port)
add address 198.51.100.2/32 to lb-vips
announce 198.51.100.2/32
`)
		time.Sleep(plan.Linger / 2)
		d.pass()
		expect(t, "the old VIP within its linger", w.since(), "")
		time.Sleep(plan.Linger / 2)
		d.pass()
		expect(t, "the old VIP after its linger", w.since(), `
remove address 198.51.100.1/32 from lb-vips
delete service 198.51.100.1:80/tcp
`)
	})
}

// TestAdopt: a start with the table that an earlier process left writes
// nothing, and takes away what that process owned and nobody wants now, once the
// peers have had the time to hear of the withdrawal.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, leastConfig)
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		d.pass()
		w.since()

		next := w.restarts(t, d, cfg)
		next.pass()
		expect(t, "a second process", w.since(), "announce 198.51.100.1/32")

		foreign := l4.Service{Key: l4.Key{VIP: netip.MustParseAddr("203.0.113.7"), Port: 53, Protocol: l4.UDP}, Scheduler: "rr"}
		w.tableNow = append(w.tableNow, foreign)
		third := w.restarts(t, d, parse(t, strings.Replace(leastConfig, "198.51.100.1", "198.51.100.2", 1)))
		const removal = "delete service 198.51.100.1:80/tcp"
		third.pass()
		if strings.Contains(w.since(), removal) {
			t.Error("the table of a VIP that peers may still have a route to is gone")
		}
		time.Sleep(plan.Linger)
		third.pass()
		if !strings.Contains(w.since(), removal) {
			t.Error("a VIP of the process before, which nobody wants now, is still there")
		}
		if !slices.ContainsFunc(w.tableNow, func(s l4.Service) bool { return s.Key == foreign.Key }) {
			t.Error("another tool's service was removed")
		}
	})
}

// TestRepair: what another hand took away is there again after the next pass.
func TestRepair(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	w.since()

	w.tableNow, w.addresses = nil, nil
	d.pass()
	expect(t, "after ipvsadm -C and ip addr flush", w.since(), strings.Replace(built, "announce 198.51.100.1/32\n", "", 1))
}

// TestFailures: one failed operation blocks no other, is told once, and is
// tried again.
func TestFailures(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	w.failApply = func(op l4.Op) error {
		if a, ok := op.(l4.AddDestination); ok && a.Destination.Addr == netip.MustParseAddr("192.0.2.139") {
			return errors.New("no buffer space available")
		}
		return nil
	}
	d.pass()
	d.pass()
	if got := w.since(); !strings.Contains(got, "announce 198.51.100.1/32") || !strings.Contains(got, "192.0.2.140") {
		t.Errorf("with one destination failing, done:\n%s\nwant the other one, and the announcement", got)
	}
	if n := strings.Count(w.log.String(), "no buffer space"); n != 1 {
		t.Errorf("the failure was logged %d times, want once:\n%s", n, w.log.String())
	}
	if len(w.status.Errors) != 1 {
		t.Errorf("status shows errors %q, want one", w.status.Errors)
	}
	w.failApply = nil
	d.pass()
	expect(t, "when it works again", w.since(), "add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip")
	if len(w.status.Errors) != 0 {
		t.Errorf("status shows errors %q after a complete pass", w.status.Errors)
	}
}

// TestUnreadable: a reading of the kernel that fails changes nothing, one that
// goes on failing withdraws, however many passes there are meanwhile.
func TestUnreadable(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(*world, error)
	}{
		{"the table", func(w *world, err error) { w.failList = err }},
		{"the addresses", func(w *world, err error) { w.failAddresses = err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := parse(t, leastConfig)
				w, d := newWorld(t, cfg)
				w.are(cfg, health.Up)
				d.pass()
				w.since()

				tt.fail(w, errors.New("no buffer space available"))
				for range 10 {
					d.pass()
				}
				time.Sleep(maxUnread - time.Millisecond)
				d.pass()
				expect(t, "while it may pass", w.since(), "")
				time.Sleep(time.Millisecond)
				d.pass()
				expect(t, "when it lasts", w.since(), "withdraw 198.51.100.1/32")
				if got, want := w.status.VIPs[0].Reason, "the kernel cannot be read: no buffer space available"; got != want {
					t.Errorf("reason %q, want %q", got, want)
				}
				tt.fail(w, nil)
				d.pass()
				expect(t, "when it is over", w.since(), "announce 198.51.100.1/32")
			})
		})
	}
}

// TestDrain: with a drain time, GRACEFUL_SHUTDOWN goes first, on maintenance
// and on stop.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, strings.Replace(leastConfig, `drain_time = "0s"`, `drain_time = "2s"`, 1))
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		d.pass()
		w.since()

		w.file.Present, w.file.Since = true, time.Now()
		next := d.pass()
		expect(t, "at once", w.since(), "announce 198.51.100.1/32 with GRACEFUL_SHUTDOWN")
		if wait := time.Until(next); wait != 2*time.Second {
			t.Errorf("next pass in %v, want 2s", wait)
		}
		time.Sleep(2 * time.Second)
		d.pass()
		expect(t, "after drain_time", w.since(), "withdraw 198.51.100.1/32")
		w.file.Present = false
		d.pass()
		expect(t, "back", w.since(), "announce 198.51.100.1/32")

		d.stop()
		d.pass()
		expect(t, "on stop", w.since(), "announce 198.51.100.1/32 with GRACEFUL_SHUTDOWN")
		time.Sleep(2 * time.Second)
		d.pass()
		expect(t, "on stop, after drain_time", w.since(), "withdraw 198.51.100.1/32")
		if len(w.tableNow) != 1 || len(w.addresses) != 1 {
			t.Error("the table or the VIP went with the daemon; they must be left forwarding")
		}
	})
}

// TestLog: what an operator reads, one line for each change.
func TestLog(t *testing.T) {
	cfg := parse(t, leastConfig)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	w.log.Reset()
	w.file.Present, w.file.Since, w.file.Reason = true, time.Now(), "new disk"
	d.pass()
	d.pass()
	expect(t, "log", w.log.String(),
		`level=INFO msg="vip withdrawn" vips=198.51.100.1 reason="maintenance file /etc/lb/disable (new disk)"`)
	if got, want := w.status.Summary, "0 of 1 VIPs announced to 0 of 0 peers, 2 of 2 members up; withdrawn: maintenance file /etc/lb/disable (new disk)"; got != want {
		t.Errorf("summary\n%s, want\n%s", got, want)
	}
}
