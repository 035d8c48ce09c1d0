package daemon

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/l4"
)

// TestFingerprint: it is that of the table read back from the kernel, follows
// each change of it, and is not computed again for flows that come and go.
func TestFingerprint(t *testing.T) {
	w, d := announcing(t, named)
	shown := func() string {
		t.Helper()
		tables := w.status.Services[0].Tables
		if len(tables) != 1 || tables[0].Service() != "198.51.100.1:80/tcp" {
			t.Fatalf("the status shows the tables %+v, want one", tables)
		}
		return tables[0].Fingerprint
	}
	computed := func() string {
		t.Helper()
		m, err := l4.NewMaglev(w.tableNow[0])
		if err != nil {
			t.Fatal(err)
		}
		return m.Fingerprint()
	}
	before := shown()
	if before != computed() {
		t.Errorf("the status shows %s, want that of the kernel's table, %s", before, computed())
	}

	k := d.tables[w.tableNow[0].Key]
	k.shown.Fingerprint = "kept"
	d.tables[w.tableNow[0].Key] = k
	w.tableNow[0].Destinations[0].ActiveConns = 12
	if d.pass(); shown() != "kept" {
		t.Errorf("computed again for a flow")
	}

	drain(t, d, "lb7-1", "")
	drained := shown()
	if drained != computed() || drained[:8] != before[:8] || drained == before {
		t.Errorf("drained: %s after %s, want the same slots and other live ones", drained, before)
	}
	undrain(t, d, "lb7-1")
	if got := shown(); got != before {
		t.Errorf("undrained: %s, want %s as before", got, before)
	}
}

// TestNoFingerprint: another scheduler has no Maglev table, and one that nobody
// can know is not guessed at.
func TestNoFingerprint(t *testing.T) {
	w, d := announcing(t, strings.Replace(named, `pool = "lb7"`, "pool = \"lb7\"\nscheduler = \"wrr\"\nflags = []", 1))
	if got := w.status.Services[0].Tables; got != nil {
		t.Errorf("with wrr: %+v, want none", got)
	}
	table := showTable(l4.Service{
		Key: w.tableNow[0].Key, Scheduler: "mh",
		Destinations: []l4.Destination{{Addr: d.cfg.Pools[0].Members[0].Address, Port: 80, FullWeight: l4.UnknownWeight}},
	})
	if table.Fingerprint != "" || !strings.Contains(table.Error, "192.0.2.139:80 has is unknown") {
		t.Errorf("unknown slots: %+v, want an error", table)
	}
	if diff := cmp.Diff(map[l4.Key]knownTable{}, d.tables); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}
