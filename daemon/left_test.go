package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/l4"
	"lb4d/tunnel"
)

// TestForeignChange puts right what another program has changed, and tells it
// on one line, once.
func TestForeignChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		d.pass()
		expect(t, "a pass with nothing to do", w.since(), "")

		cleared := w.tableNow
		for range 3 { // It takes it back each time.
			w.tableNow = nil
			d.pass()
		}
		expect(t, "log", w.log.String(), `level=WARN msg="ipvs changed by another program, put right: 1 add service, 2 add destination, 1 edit service" first="add service 198.51.100.1:80/tcp scheduler none flags mh-fallback,mh-port"`)
		if len(w.tableNow) != len(cleared) {
			t.Errorf("the table is %v, want %v", w.tableNow, cleared)
		}

		d.pass()
		w.log.Reset()
		w.tableNow[0].Destinations[0].Weight = 7
		d.pass()
		expect(t, "log", w.log.String(), `level=WARN msg="ipvs changed by another program, put right: edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip (was weight 7 ipip)"`)

		d.pass()
		w.log.Reset()
		w.addresses = nil
		d.pass()
		d.pass()
		expect(t, "log", w.log.String(), `level=WARN msg="host changed by another program, put right: add address 198.51.100.1/32 to lb-vips"`)
	})
}

// TestForeignService leaves a service alone that is on no VIP of ours, and does
// not take it for a change of our own.
func TestForeignService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		theirs := l4.Service{
			Key:       l4.Key{VIP: netip.MustParseAddr("203.0.113.250"), Port: 80, Protocol: l4.TCP},
			Scheduler: "rr",
		}
		w.tableNow = append(w.tableNow, theirs)
		d.pass()
		d.pass()
		expect(t, "done", w.since(), "")
		expect(t, "log", w.log.String(), "")
	})
}

// meddled are sysctls that another program has changed before each pass.
type meddled struct {
	settings
	found []tunnel.SysctlChange
}

func (m *meddled) Apply([]tunnel.Sysctl) ([]tunnel.SysctlChange, error) { return m.found, nil }

// TestForeignSysctl tells once of a sysctl that another program sets back all
// the time.
func TestForeignSysctl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		change := tunnel.SysctlChange{Sysctl: tunnel.Sysctl{Key: "net.ipv4.vs.sloppy_tcp", Value: "1", Why: "flows"}, Was: "0"}
		told := `level=WARN msg="sysctl changed by another program, put right" key=net.ipv4.vs.sloppy_tcp was=0 now=1 why=flows`
		m := &meddled{settings: settings{w}, found: []tunnel.SysctlChange{change}}
		d.sysctls = m
		d.pass()
		d.pass()
		expect(t, "log", w.log.String(), told)
		m.found = nil
		d.pass()
		m.found = []tunnel.SysctlChange{change}
		d.pass()
		expect(t, "log, after it had stayed", w.log.String(), told+"\n"+told)
	})
}

// TestForeignFight: another program that never stops, with ever another change,
// is put right each time and told of now and then.
func TestForeignFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		d.pass()
		w.log.Reset()
		m := &meddled{settings: settings{w}}
		d.sysctls = m
		const minutes = 10
		for i := range minutes * 60 {
			w.tableNow[0].Destinations[0].Weight = 1000 + i
			w.addresses = nil
			if i%2 == 0 {
				w.addresses = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
			}
			m.found = []tunnel.SysctlChange{{Sysctl: tunnel.Sysctl{Key: "net.ipv4.vs.conn_reuse_mode", Value: "2"}, Was: fmt.Sprint(i + 3)}}
			d.pass()
			if got := w.tableNow[0].Destinations[0].Weight; got != 1 {
				t.Fatalf("weight %d is left", got)
			}
			time.Sleep(time.Second)
		}
		for _, kind := range []string{`msg="ipvs changed`, `msg="host changed`, `msg="sysctl changed`} {
			if n := strings.Count(w.log.String(), kind); n < minutes/2 || n > quotaBurst+minutes {
				t.Errorf("%d lines with %s in %d minutes, want some, and %d at most:\n%.2000s", n, kind, minutes, quotaBurst+minutes, w.log.String())
			}
		}
		if log := w.log.String(); !strings.Contains(log, "untold=59") || !strings.Contains(log, `next="in a minute at the earliest`) {
			t.Errorf("the log does not tell of what it leaves out:\n%.2000s", log)
		}
	})
}

// TestSignalsWhileStopping: a storm of signals is a few lines.
func TestSignalsWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		w.log.Reset()
		for range 1000 {
			d.ignore("reload")
		}
		if n := strings.Count(w.log.String(), "reload ignored"); n != quotaBurst {
			t.Errorf("%d lines for 1000 signals, want %d", n, quotaBurst)
		}
	})
}
