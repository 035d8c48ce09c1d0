package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

var at = time.Date(2024, 5, 17, 3, 12, 45, 0, time.UTC)

// base is a host on which all is well.
func base() *control.Status {
	up := func(name, address string) control.Member {
		return control.Member{
			Pool: "lb7", Name: name, Address: address,
			State: "up", Reason: "up: 200 OK in 1ms", Since: at.Add(-76 * time.Hour), Weight: 1, ConfiguredWeight: 1,
			LastAnswer: "200 OK in 1ms", LastCheck: at.Add(-400 * time.Millisecond), LatencyMicros: 1034,
			Checks: 273600, ChecksFailed: 2, ActiveFlows: 1204, InactiveFlows: 33,
		}
	}
	return &control.Status{
		Version: "1.2.3", Host: "lb4-1", PID: 4711,
		Started: at.Add(-76*time.Hour - 10*time.Second), Updated: at.Add(-300 * time.Millisecond),
		State: "running", Summary: "2 of 2 VIPs announced to 2 of 2 peers, 2 of 2 members up",
		Config:      control.ConfigFile{Path: "/etc/lb/lb4d.toml", Loaded: at.Add(-192 * time.Second)},
		Maintenance: control.Maintenance{Path: "/etc/lb/disable", Since: at.Add(-76 * time.Hour)},
		VIPs: []control.VIP{
			{Address: "198.51.100.1", Announced: true, State: "announced", Reason: "www forwards to 2 of 2 members", Since: at.Add(-76 * time.Hour), Services: []string{"www"}},
			{Address: "2001:db8::c633:6401", Announced: true, State: "announced", Reason: "www forwards to 2 of 2 members", Since: at.Add(-192 * time.Second), Services: []string{"www"}},
		},
		Services: []control.Service{
			{Name: "www", Forwarding: true, Reason: "www forwards to 2 of 2 members", Since: at.Add(-76 * time.Hour), VIPs: []string{"198.51.100.1", "2001:db8::c633:6401"}, Ports: []string{"80/tcp", "443/tcp"}, Pool: "lb7", Up: 2, Quorum: 1, QuorumRestore: 1, Members: 2},
		},
		Members: []control.Member{up("lb7-1", "192.0.2.139"), up("lb7-2", "192.0.2.140")},
		Peers: []control.Peer{
			{Name: "rr1", Address: "192.0.2.254", AS: 65000, State: "established", Since: at.Add(-76 * time.Hour), Advertised: 2, GracefulRestartAsked: 60, GracefulRestart: 60},
			{Name: "rr2", Address: "192.0.2.253", AS: 65000, State: "established", Since: at.Add(-59 * time.Second), Advertised: 2, GracefulRestartAsked: 60},
		},
	}
}

// worst is a host on which hardly anything is well.
func worst() *control.Status {
	st := base()
	st.Summary = "0 of 2 VIPs announced to 1 of 2 peers, 0 of 2 members up; last reload refused; 2 errors"
	st.Config.Error = "/etc/lb/lb4d.toml:14: pool.lb7.check.interval: \"1\" is no duration; write \"1s\""
	st.Config.ErrorAt = at.Add(-61 * time.Second)
	st.Maintenance.Present, st.Maintenance.Since = true, at.Add(-4*time.Hour-3*time.Minute)
	st.Maintenance.Reason = "new disk, \x1b[31mask Zoë\x1b[0m\u202e"
	st.Errors = []string{
		"adding service 198.51.100.1:80/tcp: operation not permitted",
		"setting net.ipv4.vs.sloppy_tcp to 1: open /proc/sys/net/ipv4/vs/sloppy_tcp: read-only file system",
	}
	for i := range st.VIPs {
		v := &st.VIPs[i]
		v.Announced, v.State = false, "withdrawn"
		v.Reason = "maintenance file /etc/lb/disable (" + st.Maintenance.Reason + ")"
	}
	st.VIPs[0].Announced, st.VIPs[0].State = true, "draining"
	st.Maintenance.By, st.Maintenance.Until = "zoe", at.Add(25*time.Minute)
	st.Maintenance.Services = []control.ServiceMaintenance{
		{Service: "mail", Path: "/etc/lb/disable.d/mail", Since: at.Add(-time.Minute), HeldUntil: at.Add(4 * time.Second)},
		{Service: "wwww", Path: "/etc/lb/disable.d/wwww", Since: at.Add(-time.Minute), Unknown: true},
	}
	st.VIPs[0].Drain = &control.VIPDrain{Phase: "draining", Deadline: at.Add(3 * time.Second), PacketsPerSecond: 120.4}
	st.VIPs[1].Drain = &control.VIPDrain{Phase: "lingering", Withdrawn: at.Add(-time.Second), LatePackets: 1}
	st.VIPs[1].Reason, st.VIPs[1].HeldUntil = "held down until 2024-05-17T03:14:00Z, because its checks have failed 4 times", at.Add(75*time.Second)
	st.VIPs[0].Services = []string{"www", "mail", "dns", "ntp", "irc"}
	s := &st.Services[0]
	s.Forwarding, s.Up, s.QuorumRestore, s.Reason = false, 0, 2, "www has 0 of 2 members up, quorum 1"
	m := st.Members
	m[0].State, m[0].Weight, m[0].Reason, m[0].LastAnswer = "down", 0, "down: dial tcp 192.0.2.139:80: connection refused", "dial tcp 192.0.2.139:80: connection refused"
	m[0].Since = at.Add(-2 * time.Second)
	m[1].State, m[1].Weight, m[1].Reason, m[1].LastAnswer = "draining", 0, "draining: drained by the operator: old disk, \x1b[2J, since 2024-05-13T23:12:45Z", "200 OK in 1ms"
	m[1].Drained = &control.Drain{Reason: "old disk, \x1b[2J", Since: at.Add(-76 * time.Hour)}
	m[1].Warning = "full-size packets (1500 bytes) do not get through the tunnel, which carries 1480; raise the underlay's MTU to 1520 or lower advmss on the LB7 to 1440"
	st.Members = append(m, control.Member{
		Pool: "lb7", Name: "lb7-3", Address: "2001:db8::c000:28d", State: "unknown",
		Reason: "unknown: no answer to the first check yet", Since: at, ConfiguredWeight: 10,
	})
	st.Peers[1].State, st.Peers[1].Advertised, st.Peers[1].LastError = "active", 0, "dial tcp 192.0.2.253:179: no route to host"
	return st
}

func TestRenderGolden(t *testing.T) {
	stuck := base()
	stuck.Updated = at.Add(-5 * time.Minute)
	empty := base()
	empty.VIPs, empty.Services, empty.Members, empty.Peers = nil, nil, nil, nil
	starting := &control.Status{
		Version: "1.2.3", Host: "lb4-1", PID: 4711, Started: at.Add(-2 * time.Second), Updated: at,
		State: "starting", Summary: "starting: the first pass has not ended",
	}
	waiting := base()
	waiting.State, waiting.Summary = "starting", "starting: waiting for the first answer of 2 checks"
	standby := base()
	standby.VIPs[0].Attributes, standby.Peers[1].Attributes = "med 100", "communities 65000:100,65000:200 med 50"
	flows := base()
	flows.Services[0].Tables = []control.Table{
		{VIP: "198.51.100.1", Port: 80, Protocol: "tcp", Fingerprint: "5f3a9c21-8bd04e77"},
		{VIP: "198.51.100.1", Port: 443, Protocol: "tcp", Fingerprint: "0b1200aa-00c4d9f2"},
		{VIP: "2001:db8::c633:6401", Port: 80, Protocol: "tcp", Error: "which slots [2001:db8::c000:28d]:80 has is unknown"},
	}
	sibling := base()
	other := control.Sibling{RouterID: "192.0.2.133", NextHop: "192.0.2.133", Since: at.Add(-time.Hour), State: "announced", Tables: "agree"}
	other6 := other
	other6.NextHop = "2001:db8::c000:285"
	third := control.Sibling{NextHop: "192.0.2.134", Since: at.Add(-time.Minute), State: "draining", Tables: "differ"}
	sibling.VIPs[0].Siblings, sibling.VIPs[0].SiblingsKnown, sibling.VIPs[0].TablesDiffer = []control.Sibling{other, third}, "all", true
	sibling.VIPs[1].Siblings, sibling.VIPs[1].SiblingsKnown = []control.Sibling{other6}, "some"
	watched := base()
	watched.Peers[0].BFD = &control.BFD{State: "up", Remote: "up", Since: at.Add(-2 * time.Minute), IntervalMillis: 300, DetectionMillis: 900, Failures: 3, Flapping: true, LastError: "nothing heard for 900ms"}
	watched.Peers[1].BFD = &control.BFD{State: "down", Since: at.Add(-time.Hour), LastError: "sending: network is unreachable"}
	watched.Peers = append(watched.Peers, control.Peer{Name: "rr3", Address: "192.0.2.252", State: "connect"})
	alone := base()
	for i := range alone.VIPs {
		alone.VIPs[i].SiblingsKnown = "none"
	}
	unseen := base()
	unseen.Maintenance.Error = "open /etc/lb: permission denied"

	for name, tt := range map[string]struct {
		status *control.Status
		term   terminal
	}{
		"well":            {base(), terminal{}},
		"well-colour":     {base(), terminal{is: true, width: 160, colour: true}},
		"worst":           {worst(), terminal{}},
		"worst-120":       {worst(), terminal{is: true, width: 120}},
		"worst-80":        {worst(), terminal{is: true, width: 80}},
		"worst-colour":    {worst(), terminal{is: true, width: 80, colour: true}},
		"worst-20":        {worst(), terminal{is: true, width: minWidth}},
		"stuck":           {stuck, terminal{}},
		"empty":           {empty, terminal{}},
		"starting":        {starting, terminal{}},
		"waiting":         {waiting, terminal{}},
		"no-maintenance":  {unseen, terminal{}},
		"standby":         {standby, terminal{}},
		"fingerprints":    {flows, terminal{}},
		"fingerprints-40": {flows, terminal{is: true, width: 40}},
		"bfd":             {watched, terminal{}},
		"siblings":        {sibling, terminal{}},
		"siblings-colour": {sibling, terminal{is: true, width: 100, colour: true}},
		"siblings-none":   {alone, terminal{}},
		"zero":            {&control.Status{}, terminal{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := render(tt.status, at, tt.term)
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("differs from %s, which -update writes anew (-want +got):\n%s", golden, diff)
			}
			for _, line := range strings.Split(got, "\n") {
				if n := utf8.RuneCountInString(line); !tt.term.colour && tt.term.width > 0 && n > tt.term.width {
					t.Errorf("%d columns on a terminal of %d: %q", n, tt.term.width, line)
				}
				if !tt.term.colour && strings.ContainsAny(line, "\x1b\u202e") {
					t.Errorf("a control character in %q", line)
				}
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:              "0s",
		999 * time.Millisecond:    "0s",
		59 * time.Second:          "59s",
		time.Minute:               "1m0s",
		192 * time.Second:         "3m12s",
		time.Hour - time.Second:   "59m59s",
		4*time.Hour + time.Minute: "4h1m",
		76 * time.Hour:            "3d4h",
		9600 * time.Hour:          "400d0h",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		"Zoë's 端口 ✓":         "Zoë's 端口 ✓",
		"a\nb\tc":            `a\nb\tc`,
		"\x1b]0;title\x07":   `\x1b]0;title\a`,
		"\u009b31m":          `\u009b31m`,
		"evil\u202egpj":      `evil\u202egpj`,
		"\u2028line\x7fdel":  `\u2028line\x7fdel`,
		"broken \xff\xfebit": "broken �bit",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		in    string
		width int
		want  string
	}{
		{"one two three", 0, "one two three"},
		{"one two three", 13, "one two three"},
		{"one two three", 7, "one two\n  three"},
		{"one  two three", 8, "one  two\n  three"},
		{"abcdefghijkl mn", 6, "abcdef\n  ghij\n  kl\n  mn"},
		{"a abcdefghijkl", 6, "a\n  abcd\n  efgh\n  ijkl"},
		{"ééé ééé", 4, "ééé\n  éé\n  é"},
	} {
		if got := wrap(tt.in, tt.width, "  "); got != tt.want {
			t.Errorf("wrap(%q, %d) = %q, want %q", tt.in, tt.width, got, tt.want)
		}
	}
}

func TestFormattedEscapes(t *testing.T) {
	raw := []byte("{\"reason\":\"a\u009b31m \u202e \U000e0001 Zoë \x7f\",\"n\":[1]}\n")
	got, err := formatted(raw, true)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"reason":"a\u009b31m \u202e \udb40\udc01 Zoë \u007f","n":[1]}` + "\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOverFitsTheScreen(t *testing.T) {
	page := strings.Repeat("line\n", 10)
	for height, want := range map[int]int{0: 10, 11: 10, 10: 9, 5: 4} {
		got := terminal{is: true, height: height}.over(page, false)
		if n := strings.Count(got, "\n"); n != want {
			t.Errorf("height %d: %d lines, want %d: %q", height, n, want, got)
		}
	}
	if got, want := (terminal{height: 4}).over(page, true), "\x1b[H\x1b[2Jline\x1b[K\nline\x1b[K\n… and 8 more lines\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
