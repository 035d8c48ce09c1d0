package control

import (
	"bytes"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// lb7Fixture is an LB7 host on a bad day: each part is on, and each has
// something to complain of.
func lb7Fixture() *LB7Status {
	ago := func(d time.Duration) time.Time { return at.Add(-d) }
	ready := SlotServer{
		Slot: 1, ID: "web-1", Name: "s1", Address: "192.0.2.11:8080", Group: "gold", Zone: "z1",
		WantedState: "ready", State: "ready", Running: true, WantedWeight: 40, FullWeight: 100, Weight: 40,
		Since: ago(time.Hour), PassedAt: ago(59 * time.Minute),
	}
	drained := SlotServer{
		Slot: 2, ID: "web-2", Name: "s2", Address: "[2001:db8::12]:8080",
		WantedState: "drain", State: "ready", WantedWeight: 100, FullWeight: 100, Weight: 7, Since: ago(time.Minute), HeldByAgent: "drain",
	}
	untold := SlotServer{Slot: 4, ID: "web-4", Address: "192.0.2.14:8080", WantedState: "ready", WantedWeight: 1, FullWeight: 1, Since: at}
	return &LB7Status{
		Program: "lb7d", Version: "1.2.3", Host: "lb7-1", PID: 4711,
		Started: ago(time.Hour), Updated: at, State: "running", Summary: "1 of 3 servers of 2 back ends take requests; 2 faults",
		Config: ConfigFile{
			Path: "/etc/lb/lb7d.toml", Loaded: ago(time.Hour),
			Error: "/etc/lb/lb7d.toml:4: backend.web.slots: 0 is out of range", ErrorAt: ago(time.Minute),
		},
		Tunnel: &Tunnel{
			VIPs: []string{"198.51.100.1", "2001:db8::c633:6401"}, Modes: []string{"ipip", "gue"}, Devices: []string{"lb-ipip"},
			MTU: 1500, MSS4: 1440, MSS6: 1400, Unlimited: []string{"default dev eth1: it has an mtu of its own"},
			Error: "adding fou port 5555: address already in use", Applied: ago(2 * time.Second), Repaired: 3,
		},
		AgentCheck: &AgentCheck{
			File: "/etc/lb/agent-check", Listen: []string{":5555"}, Answer: "drain # new disk", Source: "last good",
			Reason: "new disk", Since: ago(time.Minute), Fault: `"dran" is no word of HAProxy's`, Questions: 1234, Faults: 5,
		},
		HAProxy: &HAProxy{
			Socket: "/run/haproxy/admin.sock", Running: true, PID: 815, Version: "2.6.12",
			Since: ago(30 * time.Minute), Sessions: 17, Restarts: 2,
		},
		Records: []Record{
			{
				Name: "web", Store: "etcd http://192.0.2.5:2379", Version: 42, Holder: "lb7-1-abcdefgh", Held: true,
				StoreError: "writing /lb7d/web/slots to etcd: context deadline exceeded",
				Source:     "file /etc/lb/web.json", Listed: 12, At: ago(90 * time.Second),
				SourceError: "reading the server list: permission denied", FailingSince: ago(time.Minute), Failures: 61,
				Refused: []string{"port-high: the port 99999 is not between 1 and 65535"}, RefusedTotal: 1,
				Slots: 10, Used: 3, Overflow: []string{"web-11", "web-12"}, Waiting: []string{"web-13"},
				HeldBack: &HeldBack{Since: ago(time.Minute), Size: 2, Missing: 8, Until: at.Add(time.Minute)},
			},
			// Another host asks the source of this one.
			{Name: "api", Store: "etcd http://192.0.2.5:2379", Version: 7, Holder: "lb7-2-abcdefgh", Source: "http http://192.0.2.6/servers", Slots: 5},
		},
		Backends: []Backend{
			{
				Name: "web", Record: "web", Takes: "groups gold", Error: "applying to back end web: no such server",
				Problems: []string{"s2: its weight stays 7"}, Applied: ago(time.Second), IncludeError: "writing the include file: no space left on device",
				Servers: []SlotServer{ready, drained, untold}, Sent: 54, Failed: 1, Repaired: 2, LastMicros: 1250,
			},
			{Name: "api", Record: "api", Takes: "all"},
		},
		Directories: []Directory{{
			Name: "pods", State: "stale", Problems: []string{"the directory service has been away for 1m0s"},
			Map: "/var/lib/lb/pods.map", Listen: "127.0.0.1:9410",
			Hosts: 900, Max: 1000, InMap: 899, Stale: 3, Unknown: 12, Asking: 2, Open: 1,
			Oldest: ago(time.Hour), AnsweredAt: ago(time.Minute), BulkAt: ago(10 * time.Minute), Wrong: "a: no such pod", WrongAt: ago(time.Hour),
			Counters: numbered[DirectoryCounters](100),
		}},
		Errors:   []string{"web: 2 servers without a slot: web-11 web-12", "tunnel: adding fou port 5555: address already in use"},
		Counters: LB7Counters{Reloads: 3, ReloadsFailed: 1},
	}
}

// numbered is a T whose counters count up from n in their order, so that no two
// can be mistaken for one another.
func numbered[T any](n uint64) T {
	var t T
	v := reflect.ValueOf(&t).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64:
			f.SetUint(n + uint64(i))
		case reflect.Int64:
			f.SetInt(int64(n) + int64(i))
		}
	}
	return t
}

// scrapeLB7 is what the collector alone has to say on st.
func scrapeLB7(t *testing.T, st *LB7Status) []byte {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector{func() *snapshot { return newSnapshot(st, func(e emitter) { e.lb7(st) }) }})
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("got %d %s", rec.Code, rec.Body)
	}
	return rec.Body.Bytes()
}

func TestLB7MetricsGolden(t *testing.T) {
	got := scrapeLB7(t, lb7Fixture())
	const golden = "testdata/lb7_metrics.txt"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("metrics differ from %s, which -update writes anew (-want +got):\n%s", golden, diff)
	}
}

func TestLB7MetricsLint(t *testing.T) {
	problems, err := promlint.New(bytes.NewReader(scrapeLB7(t, lb7Fixture()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A host with no part at work tells of lb7d alone.
func TestLB7MetricsOfNoPart(t *testing.T) {
	text := string(scrapeLB7(t, &LB7Status{Program: "lb7d", Version: "1.2.3", State: "starting", Updated: at}))
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, part := range []string{"tunnel", "agent_check", "haproxy", "record", "source", "backend", "server", "directory"} {
			if strings.HasPrefix(line, "lb7d_"+part) {
				t.Errorf("%q of a part that is off", line)
			}
		}
	}
	if !strings.Contains(text, `lb7d_state{state="starting"} 1`) {
		t.Errorf("no state in\n%s", text)
	}
}
