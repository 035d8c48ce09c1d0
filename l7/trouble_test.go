package l7

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

const several = `
defaults
	mode http
	timeout connect 1s
	timeout client 1s
	timeout server 1s
backend fixed
	balance uri
	server-template s 1-3 127.0.0.2:9 disabled
backend default
	balance uri
	hash-type consistent
	server-template s 1-3 127.0.0.2:9 disabled
backend fallback
	balance uri
	hash-type consistent
	server-template f 1-3 127.0.0.2:9 disabled
backend nameless
	server one 127.0.0.2:9 disabled
	server two 127.0.0.2:9 disabled
`

func apply(t *testing.T, h *haproxytest.HAProxy) func(backend string, wanted []slots.Slot) Report {
	c, err := runtime.New(h.Socket, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	appliers := map[string]*Applier{}
	return func(backend string, wanted []slots.Slot) Report {
		t.Helper()
		if appliers[backend] == nil {
			appliers[backend] = NewApplier(c, backend, "")
		}
		r, err := appliers[backend].Apply(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// A back end that takes no weights has its servers all the same, says why the
// weights are not as wanted, and is not asked again and again.
func TestFixedTable(t *testing.T) {
	apply := apply(t, haproxytest.Start(t, several))
	view := []slots.Slot{want(t, 1, "192.0.2.1:80 ready 5"), want(t, 2, "192.0.2.2:80 ready 1"), want(t, 3, "free")}
	for i, sent := range []int{7, 0, 0} {
		r := apply("fixed", view)
		if r.Sent != sent {
			t.Errorf("pass %d: %d commands, want %d: %v", i, r.Sent, sent, r.Steps)
		}
		if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "hash-type consistent takes them") {
			t.Errorf("pass %d: problems %v", i, r.Problems)
		}
		if s := r.Servers[1]; s.State != runtime.Ready || s.Addr != view[0].Addr {
			t.Errorf("pass %d: %+v", i, s)
		}
	}
}

// A dedicated back end, its fallback, and a server that goes: it stays behind
// in neither, whichever of the two it was in.
func TestDedicatedAndFallback(t *testing.T) {
	apply := apply(t, haproxytest.Start(t, several))
	policy := slots.Policy{Slots: 3, MaxShrink: 100, Weight: 1}
	f := slots.Filter{Groups: []string{"asg-a"}}
	server := func(n byte, group string) slots.Server {
		return slots.Server{ID: "i-" + string('0'+n), Addr: want(t, 1, "192.0.2.1:80 ready 1").Addr.Addr(), Port: int(n), Group: group, Weight: 1}
	}
	var record slots.Record
	for _, tt := range []struct {
		name                       string
		list                       []slots.Server
		inDefault, inRest, inEvery string
	}{
		{"one in each", []slots.Server{server(1, "asg-a"), server(2, "asg-b")}, "ready maint maint", "maint ready maint", "ready ready maint"},
		{"the dedicated one goes", []slots.Server{server(2, "asg-b")}, "maint maint maint", "maint ready maint", "maint ready maint"},
		{"the other one changes its group", []slots.Server{server(2, "asg-a")}, "maint ready maint", "maint maint maint", "maint ready maint"},
		{"it goes too", nil, "maint maint maint", "maint maint maint", "maint maint maint"},
	} {
		record, _ = slots.Assign(record, tt.list, time.Now(), policy)
		states := func(r Report) string {
			var s []string
			for n := 1; n <= 3; n++ {
				s = append(s, string(r.Servers[n].State))
			}
			return strings.Join(s, " ")
		}
		if got := states(apply("default", record.View(f))); got != tt.inDefault {
			t.Errorf("%s: the default back end has %s, want %s", tt.name, got, tt.inDefault)
		}
		rest := f
		rest.Rest = true
		if got := states(apply("fallback", record.View(rest))); got != tt.inRest {
			t.Errorf("%s: the fallback has %s, want %s", tt.name, got, tt.inRest)
		}
		if got := states(apply("fallback", record.View(slots.Filter{}))); got != tt.inEvery {
			t.Errorf("%s: a fallback with all has %s, want %s", tt.name, got, tt.inEvery)
		}
	}
}

// What keeps a whole back end from being applied is an error, and nothing is
// taken for done.
func TestNoBackend(t *testing.T) {
	h := haproxytest.Start(t, several)
	c, err := runtime.New(h.Socket, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for backend, wrong := range map[string]string{
		"none":         `applying to back end none: HAProxy refuses "show servers state none": Can't find backend.`,
		"nameless":     "applying to back end nameless: finding the slots: none of 2 servers has a name that ends in its number",
		"default\nfoo": "which ends a command",
	} {
		if _, err := NewApplier(c, backend, "").Apply(t.Context(), nil); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v, want %s", backend, err, wrong)
		}
	}
	a := NewApplier(c, "default", "")
	view := []slots.Slot{want(t, 1, "192.0.2.1:80 ready 1")}
	if _, err := a.Apply(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	h.Stop()
	if _, err := a.Apply(t.Context(), view); err == nil || !strings.Contains(err.Error(), "connecting to HAProxy") {
		t.Errorf("HAProxy is away: %v", err)
	}
	h.Run(t)
	r, err := a.Apply(t.Context(), view)
	if err != nil || !r.Restarted || r.Sent != 3 {
		t.Errorf("HAProxy is back: %+v, %v", r, err)
	}
	none, err := runtime.New(filepath.Join(h.Dir, "none"), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewApplier(none, "default", "").Apply(t.Context(), view); err == nil {
		t.Error("no socket: no error")
	}
}
