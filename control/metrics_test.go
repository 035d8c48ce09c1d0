package control

import (
	"bytes"
	"flag"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixture is a host on a bad day: each state occurs.
func fixture() *Status {
	member := Member{
		Pool: "lb7", Name: "lb7-1", Address: "192.0.2.139", VIPFamily: "ipv4",
		State: "up", Reason: "up: 200 OK in 1ms", Since: at.Add(-time.Hour), Weight: 1, ConfiguredWeight: 1,
		LastAnswer: "200 OK in 1ms", LastCheck: at, LatencyMicros: 1034, Checks: 3601, ChecksFailed: 2,
		ActiveFlows: 120, InactiveFlows: 33,
	}
	down := member
	down.Name, down.Address, down.VIPFamily, down.State, down.Weight = "lb7-2", "2001:db8::c000:28c", "ipv6", "down", 0
	draining := member
	draining.Name, draining.Address, draining.State, draining.Weight = "lb7-3", "192.0.2.141", "draining", 0
	draining.Drained = &Drain{Reason: `disk "sda"`, Since: at.Add(-time.Minute)}
	draining.Reason = `draining: drained by the operator: disk "sda", since 2024-05-17T03:11:45Z`
	member.CheckedVIP, member.FullSize, draining.FullSize, down.FullSize = "198.51.100.1", "ok", "failed", "unknown"
	unknown := Member{Pool: "lb7", Name: "lb7-4", Address: "192.0.2.142", State: "unknown", ConfiguredWeight: 1, Since: at}
	return &Status{
		Version: "1.2.3", Host: "lb4-1", PID: 4711,
		Started: at.Add(-time.Hour), Updated: at,
		State: "running", Summary: "1 of 3 VIPs announced",
		Config: ConfigFile{
			Path: "/etc/lb/lb4d.toml", Loaded: at.Add(-time.Hour),
			Error: "/etc/lb/lb4d.toml:4: bgp.as: 0 is no AS number", ErrorAt: at.Add(-time.Minute),
		},
		Maintenance: Maintenance{Path: "/etc/lb/disable", Present: true, Since: at.Add(-time.Minute), Reason: `disk "sdb"`},
		LastDrain:   &DrainReport{Ended: at, VIPs: 3, Seconds: 4.25, LatePackets: 12},
		VIPs: []VIP{
			{Address: "198.51.100.1", Announced: true, State: "announced", Reason: "www forwards to 1 of 4 members", Flows: 7, Packets: 123, Drain: &VIPDrain{Phase: "draining", Deadline: at.Add(5 * time.Second), PacketsPerSecond: 61.5}, Since: at.Add(-time.Hour), Services: []string{"www", "www-udp"}, SiblingsKnown: "all", TablesDiffer: true, Siblings: []Sibling{{State: "announced"}, {State: "announced"}, {State: "draining"}}},
			{Address: "198.51.100.2", Announced: true, State: "draining", Reason: "draining: maintenance file /etc/lb/disable (disk \"sdb\")", Since: at, Services: []string{"www"}},
			{Address: "2001:db8::c633:6401", State: "withdrawn", Failures: 4, HeldUntil: at.Add(time.Minute), Reason: "www has 0 of 4 members up\nquorum 1", Since: at, Services: []string{}, SiblingsKnown: "some", Failing: "here"},
		},
		Services: []Service{
			{Name: "www", Forwarding: true, Since: at, VIPs: []string{"198.51.100.1"}, Ports: []string{"80/tcp"}, Pool: "lb7", Up: 1, Quorum: 1, QuorumRestore: 1, Members: 4, Tables: []Table{
				{VIP: "198.51.100.1", Port: 80, Protocol: "tcp", Fingerprint: "5f3a9c21-8bd04e77"},
				{VIP: "2001:db8::c633:6401", Port: 80, Protocol: "tcp", Error: "which slots a member has is unknown"},
			}},
			{Name: "www-udp", Reason: "1 of 4 members up, quorum 2", Since: at, VIPs: []string{}, Ports: []string{}, Pool: "lb7", Up: 1, Quorum: 2, QuorumRestore: 3, Members: 4},
		},
		Members: []Member{member, down, draining, unknown},
		Peers: []Peer{
			{Name: "rr1", Address: "192.0.2.254", AS: 65000, State: "established", Since: at.Add(-time.Hour), Advertised: 2, GracefulRestartAsked: 60, GracefulRestart: 60, Received: Received{Paths: 3, Ignored: 70000, Malformed: 1, OverLimit: true}},
			{Name: "rr2", Address: "2001:db8::fe", AS: 4200000000, State: "active", LastError: "connection refused", BFD: &BFD{State: "down", Failures: 3, Flapping: true}},
		},
		Errors: []string{"adding service 198.51.100.1:80/tcp: operation not permitted"},
		Counters: Counters{
			Passes: 3700, PassesFailed: 3, KernelWrites: 42, Announcements: 5, Withdrawals: 2,
			Reloads: 1, ReloadsFailed: 1, LastPassMicros: 2750,
		},
	}
}

// scrape is what the collector alone has to say on st; a metric that is not
// consistent fails the test.
func scrape(t *testing.T, st *Status) []byte {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector{func() *snapshot { return newSnapshot(st, func(e emitter) { e.lb4(st) }) }})
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("got %d %s", rec.Code, rec.Body)
	}
	return rec.Body.Bytes()
}

func TestMetricsGolden(t *testing.T) {
	st := fixture()
	st.VIPs[2].Reason += " \xff" // a maintenance file may say anything
	got := scrape(t, st)
	const golden = "testdata/metrics.txt"
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

func TestMetricsLint(t *testing.T) {
	problems, err := promlint.New(bytes.NewReader(scrape(t, fixture()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetricsWhileStarting(t *testing.T) {
	got := string(scrape(t, &Status{State: "starting", Version: "1"}))
	for _, want := range []string{`lb4d_state{state="starting"} 1`, `lb4d_state{state="running"} 0`} {
		if !strings.Contains(got, want) {
			t.Errorf("got no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "_timestamp_seconds") {
		t.Errorf("a time that never was is shown in\n%s", got)
	}
}

// TestMetricsHandler has the runtime's metrics beside ours, and shows the
// others when two are in each other's way.
func TestMetricsHandler(t *testing.T) {
	s := newServer("1.2.3", slog.New(slog.DiscardHandler))
	st := fixture()
	st.VIPs = append(st.VIPs, st.VIPs[0])
	s.Publish(st)
	rec := httptest.NewRecorder()
	s.routes().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\nlb4d_build_info{version=\"1.2.3\"} 1\n",
		"\nlb4d_maintenance_file_present 1\n", "\npromhttp_metric_handler_errors_total{",
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("got %d without %q:\n%s", rec.Code, want, rec.Body)
		}
	}
}

func TestLabelIsBounded(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("é", maxLabel), strings.Repeat("x", maxLabel), "a\xffb"} {
		got := label(s)
		if len(got) > maxLabel || !utf8.ValidString(got) {
			t.Errorf("label(%q) = %q, %d bytes", s, got, len(got))
		}
	}
}
