package l7

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// have reads a server as HAProxy has it: "s1 192.0.2.1:80 ready up 10 check
// checked agent". "agent-" is one that is stopped.
func have(t *testing.T, text string) runtime.Server {
	t.Helper()
	f := strings.Fields(text)
	s := runtime.Server{Backend: "b", Name: f[0], Addr: netip.MustParseAddrPort(f[1]), State: runtime.State(f[2])}
	for _, w := range f[3:] {
		switch w {
		case "up":
			s.Running = true
		case "check":
			s.HasCheck = true
		case "checked":
			s.HasCheck, s.Checked = true, true
		case "agent":
			s.HasAgent, s.Agent = true, true
		case "agent-":
			s.HasAgent = true
		default:
			if _, err := fmt.Sscan(w, &s.Weight); err != nil {
				t.Fatalf("%q in %q", w, text)
			}
		}
	}
	return s
}

// want reads a slot: "192.0.2.1:80 ready 10 passed", or "free".
func want(t *testing.T, n int, text string) slots.Slot {
	t.Helper()
	f := strings.Fields(text)
	if f[0] == "free" {
		return slots.Slot{Number: n, State: slots.Free}
	}
	s := slots.Slot{Number: n, ID: fmt.Sprint("i-", n), Addr: netip.MustParseAddrPort(f[0]), State: slots.State(f[1])}
	_, _ = fmt.Sscan(f[2], &s.Weight)
	s.Full = s.Weight
	if len(f) > 3 {
		s.PassedAt = time.Unix(1, 0)
	}
	return s
}

func TestDiff(t *testing.T) {
	const old, at = "127.0.0.2:80", "192.0.2.1:80"
	for _, tt := range []struct {
		name       string
		have, want string
		done       string // what was carried out in this process, where anything was
		fixed      bool
		commands   string // without "set server b/s1"
		reason     string
		held       string
	}{
		{name: "as wanted: nothing", have: at + " ready up 10 checked", want: at + " ready 10 passed"},
		{name: "as wanted but down: that is the check's business", have: at + " ready 10 checked", want: at + " ready 10 passed"},
		{name: "free and in maintenance: nothing, whatever the address", have: at + " maint 10 check", want: "free"},
		{
			name: "a new server comes in behind its check", have: old + " maint 1 check", want: at + " ready 10",
			commands: "addr 192.0.2.1 port 80, weight 10, state drain, health down, state ready",
			reason:   "address 127.0.0.2:80 instead of 192.0.2.1:80",
		},
		{
			name: "one of the weight that is there already", have: old + " maint 10 check", want: at + " ready 10",
			commands: "addr 192.0.2.1 port 80, state drain, health down, state ready",
		},
		{
			name: "one that has passed before comes in at once when HAProxy has lost it", have: old + " maint 1 check", want: at + " ready 10 passed",
			commands: "addr 192.0.2.1 port 80, weight 10, state drain, state ready",
		},
		{
			name: "but not when its slot had another server", have: old + " maint 1 checked", want: at + " ready 10 passed", done: "free",
			commands: "addr 192.0.2.1 port 80, weight 10, state drain, health down, state ready",
		},
		{
			name: "one without a check comes in at once, since nothing would bring it up", have: old + " maint 1", want: at + " ready 1",
			commands: "addr 192.0.2.1 port 80, state drain, state ready",
		},
		{
			name: "IPv6", have: old + " maint 1", want: "[2001:db8::1]:8080 ready 1",
			commands: "addr 2001:db8::1 port 8080, state drain, state ready",
		},
		{
			name: "another port is another address", have: "192.0.2.1:81 maint 1", want: at + " ready 1",
			commands: "addr 192.0.2.1 port 80, state drain, state ready",
		},
		{
			name: "another server in a slot that is up: out first", have: old + " ready up 1 checked", want: at + " ready 1",
			commands: "state maint, addr 192.0.2.1 port 80, state drain, health down, state ready",
		},
		{
			name: "gone: one command", have: at + " ready up 10 checked", want: "free",
			commands: "state maint", reason: "ready in a free slot",
		},
		{
			name: "gone, with an agent: it is stopped, or it would say ready", have: at + " ready up 10 checked agent", want: "free",
			commands: "state maint, disable agent",
		},
		{
			name: "free since HAProxy started, with an agent", have: old + " maint 1 check agent", want: "free",
			commands: "disable agent", reason: "agent check running",
		},
		{
			name: "excluded: one command", have: at + " ready up 10 checked", want: at + " drain 10 passed",
			commands: "state drain", reason: "ready instead of drain",
		},
		{
			name: "excluded, with an agent", have: at + " ready up 10 checked agent", want: at + " drain 10 passed",
			commands: "state drain, disable agent",
		},
		{
			name: "no longer excluded: one command, it was checked all along", have: at + " drain up 10 checked", want: at + " ready 10 passed",
			commands: "state ready",
		},
		{
			name: "no longer excluded, with an agent", have: at + " drain up 10 checked agent-", want: at + " ready 10 passed",
			commands: "state ready, enable agent",
		},
		{
			name: "excluded from the start", have: old + " maint 1 check", want: at + " drain 5",
			commands: "addr 192.0.2.1 port 80, weight 5, state drain, health down",
		},
		{
			name: "excluded from the start, with an agent", have: old + " maint 1 check agent", want: at + " drain 1",
			commands: "addr 192.0.2.1 port 80, disable agent, state drain, health down",
		},
		{
			name: "excluded, HAProxy started with the include file: known to be healthy", have: at + " maint 5 check", want: at + " drain 5 passed",
			commands: "state drain",
		},
		{
			name: "another weight: one command", have: at + " ready up 1 checked", want: at + " ready 4 passed",
			commands: "weight 4", reason: "weight 1 instead of 4",
		},
		{
			name: "put into maintenance by somebody: back, behind its check", have: at + " maint 10 checked", want: at + " ready 10 passed", done: at + " ready 10 passed",
			commands: "state drain, health down, state ready", reason: "maint instead of ready",
		},
		{
			name: "drained by somebody: back", have: at + " drain up 10 checked", want: at + " ready 10 passed", done: at + " ready 10 passed",
			commands: "state ready", reason: "drain instead of ready",
		},
		{
			name: "drained by its agent: left", have: at + " drain up 10 checked agent", want: at + " ready 10 passed", done: at + " ready 10 passed",
			held: "drain",
		},
		{
			name: "in maintenance by its agent: left, also by a daemon that has just started", have: at + " maint 10 checked agent", want: at + " ready 10 passed",
			held: "maint",
		},
		{
			name: "started disabled by the include file, with an agent: that was not the agent", have: at + " maint 10 check agent", want: at + " ready 10",
			commands: "state drain, health down, state ready",
		},
		{
			name: "weighed by its agent: left", have: at + " ready up 5 checked agent", want: at + " ready 10 passed", done: at + " ready 10 passed",
			held: "weight 5",
		},
		{
			name: "weighed by its agent while the ramp goes on: the ramp's word is new", have: at + " ready up 1 checked agent", want: at + " ready 4 passed", done: at + " ready 1 passed",
			commands: "weight 4",
		},
		{
			name: "weighed by somebody: back", have: at + " ready up 5 checked", want: at + " ready 10 passed", done: at + " ready 10 passed",
			commands: "weight 10",
		},
		{
			name: "drained half-way through coming in, by a daemon that died: its health is not earned", have: at + " drain up 10 check", want: at + " ready 10",
			commands: "health down, state ready",
		},
		{
			name: "a fixed table: weights are left", have: at + " ready up 1 checked", want: at + " ready 4 passed", fixed: true,
		},
		{
			name: "a fixed table: the rest is not", have: old + " maint 1 check", want: at + " ready 4", fixed: true,
			commands: "addr 192.0.2.1 port 80, state drain, health down, state ready",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			known := Known{Done: map[int]slots.Slot{}, FixedWeights: tt.fixed}
			if tt.done != "" {
				known.Done[1] = want(t, 1, tt.done)
			}
			d := Diff("b", map[int]runtime.Server{1: have(t, "s1 "+tt.have)}, []slots.Slot{want(t, 1, tt.want)}, known)
			var got []string
			reason := ""
			for _, s := range d.Steps {
				reason = s.Reason
				for _, c := range s.Commands {
					got = append(got, strings.TrimSuffix(strings.TrimPrefix(c.String(), "set server b/s1 "), " b/s1"))
				}
			}
			if diff := cmp.Diff(tt.commands, strings.Join(got, ", ")); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if tt.reason != "" && reason != tt.reason {
				t.Errorf("the reason is %q, want %q", reason, tt.reason)
			}
			if d.Held[1] != tt.held {
				t.Errorf("held: %q, want %q", d.Held[1], tt.held)
			}
			if (len(d.Problems) > 0) != (tt.fixed) && !strings.Contains(tt.name, "the rest") {
				t.Errorf("problems: %v", d.Problems)
			}
			if len(got) > 0 && reason == "" {
				t.Error("no reason")
			}
		})
	}
}

// Slots that one side lacks.
func TestDiffUnevenSlots(t *testing.T) {
	servers := map[int]runtime.Server{
		1: have(t, "s1 192.0.2.1:80 ready up 1"),
		2: have(t, "s2 192.0.2.2:80 ready up 1"),
	}
	d := Diff("b", servers, []slots.Slot{want(t, 1, "192.0.2.1:80 ready 1"), want(t, 3, "192.0.2.3:80 ready 1"), want(t, 4, "free")}, Known{})
	if len(d.Steps) != 1 || d.Steps[0].Slot != 2 || d.Steps[0].Commands[0].String() != "set server b/s2 state maint" {
		t.Errorf("steps: %+v", d.Steps)
	}
	if diff := cmp.Diff([]string{"slot 3: back end b has no such server, so i-3 at 192.0.2.3:80 gets no traffic"}, d.Problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// What cannot be sent is a problem of its own slot.
func TestDiffHostile(t *testing.T) {
	servers := map[int]runtime.Server{1: have(t, "s1 127.0.0.2:80 maint 1"), 2: have(t, "s2 127.0.0.2:80 maint 1")}
	bad := want(t, 1, "0.0.0.0:80 ready 1")
	d := Diff("b", servers, []slots.Slot{bad, want(t, 2, "192.0.2.2:80 ready 1")}, Known{})
	if len(d.Steps) != 1 || d.Steps[0].Slot != 2 || len(d.Problems) != 1 || !strings.HasPrefix(d.Problems[0], "slot 1: ") {
		t.Errorf("%+v", d)
	}
}

func TestNumbered(t *testing.T) {
	for _, tt := range []struct {
		names, prefix string
		want          string // of the prefix and the numbers, or an error
	}{
		{"s1 s2 s3", "", "s: 1 2 3"},
		{"s2 s1 backup", "", "s: 1 2"},
		{"web1 s1 s2", "", "s: 1 2"},
		{"web1 s1 s2", "web", "web: 1"},
		{"web1-1 web1-2 web1-10", "", "web1-: 1 2 10"},
		{"s01 s02", "", "error: none of 2 servers has a name that ends in its number"},
		{"a1 b1", "", "error: 1 servers are named a and a number, and as many b: say which"},
		{"a b", "", "error: none of 2 servers has a name that ends in its number"},
		{"a1", "b", "error: no server is named b and a number"},
		{"1 2", "", ": 1 2"},
		{"s1 s99999999999999999999", "", "s: 1"},
	} {
		t.Run(tt.names, func(t *testing.T) {
			var servers []runtime.Server
			for _, n := range strings.Fields(tt.names) {
				servers = append(servers, runtime.Server{Name: n})
			}
			got, err := Numbered(servers, tt.prefix)
			text := ""
			for n := range slots.MaxSlots {
				if s, ok := got[n]; ok {
					if text == "" {
						text = strings.TrimSuffix(s.Name, fmt.Sprint(n)) + ":"
					}
					text += fmt.Sprint(" ", n)
				}
			}
			if err != nil {
				text = strings.Replace(err.Error(), "finding the slots", "error", 1)
			}
			if text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}
