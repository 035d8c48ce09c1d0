package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

// obey has an lb4d's control server answer drain and undrain with a and err,
// and names its socket. The last request is in asked.
func obey(t *testing.T, a *control.DrainAnswer, err error) (path string, asked *control.DrainRequest) {
	t.Helper()
	path, asked = filepath.Join(t.TempDir(), "lb4d.sock"), &control.DrainRequest{}
	do := func(_ context.Context, r control.DrainRequest) (*control.DrainAnswer, error) {
		*asked = r
		return a, err
	}
	s, failed := control.Listen(control.Options{Socket: path, Drain: do, Undrain: do})
	if failed != nil {
		t.Fatal(failed)
	}
	t.Cleanup(func() { s.Close() })
	return path, asked
}

// draining is an answer of a drain that has just begun.
func draining() *control.DrainAnswer {
	drain := &control.Drain{Reason: "new disk, \x1b[2J", Since: time.Now()}
	return &control.DrainAnswer{
		Host: "lb4-1", Pool: "lb7", Member: "lb7-1", Changed: true, Drained: drain, InEffect: true,
		Members: []control.Member{{
			Pool: "lb7", Name: "lb7-1", Address: "192.0.2.139", State: "draining",
			Reason:  "draining: drained by the operator: new disk, \x1b[2J, since 2024-05-17T03:12:45Z",
			Drained: drain, ConfiguredWeight: 1, LastAnswer: "200 OK in 1ms", ActiveFlows: 12,
		}},
	}
}

func answering(change func(*control.DrainAnswer)) *control.DrainAnswer {
	a := draining()
	change(a)
	return a
}

// TestDrainVerbs: what is asked, what is shown, and what the exit status says.
func TestDrainVerbs(t *testing.T) {
	hourAgo := &control.Drain{Reason: "old disk", Since: time.Now().Add(-time.Hour)}
	for _, tt := range []struct {
		name           string
		args           string
		answer         *control.DrainAnswer
		err            error
		asked          control.DrainRequest
		exit           int
		stdout, stderr string // parts; empty: nothing at all
	}{
		{
			name: "drain", args: "drain lb7-1 --reason NEW_DISK", answer: draining(),
			asked: control.DrainRequest{Member: "lb7-1", Reason: "new disk"},
			stdout: `lb7-1 of pool lb7 is drained on lb4-1: new disk, \x1b[2J

MEMBER  POOL  ADDRESS      STATE     FOR  WEIGHT  ACTIVE  INACTIVE  LAST ANSWER
lb7-1   lb7   192.0.2.139  draining  -    0 of 1      12         0  12 flows left; 200 OK in 1ms; drained by the operator: new disk, \x1b[2J, since 2024-05-17T03:12:45Z
`,
		},
		{
			name: "with one dash, by force, of one of two pools", args: "drain -force -reason=NEW_DISK lb7/lb7-1",
			answer: answering(func(a *control.DrainAnswer) {
				a.Warnings = []string{"VIPs are withdrawn: www has 0 of 2 members up, quorum 1"}
			}),
			asked:  control.DrainRequest{Member: "lb7/lb7-1", Reason: "new disk", Force: true},
			stdout: "12 flows left", stderr: "lbctl: warning: VIPs are withdrawn: www has 0 of 2 members up, quorum 1\n",
		},
		{
			name: "drained already", args: "drain lb7-1",
			answer: answering(func(a *control.DrainAnswer) { a.Changed, a.Was, a.Drained = false, hourAgo, hourAgo }),
			asked:  control.DrainRequest{Member: "lb7-1"},
			stdout: "lb7-1 of pool lb7 was drained on lb4-1 already, 1h0m ago: old disk\n",
		},
		{
			name: "drained already, for another reason", args: "drain lb7-1 -r NEW_DISK",
			answer: answering(func(a *control.DrainAnswer) { a.Was, a.Drained.Reason = hourAgo, "new disk" }),
			asked:  control.DrainRequest{Member: "lb7-1", Reason: "new disk"},
			stdout: "lb7-1 of pool lb7 was drained on lb4-1 already, 1h0m ago: old disk; the reason is now: new disk\n",
		},
		{
			name: "the kernel could not be told", args: "drain lb7-1",
			answer: answering(func(a *control.DrainAnswer) {
				a.InEffect, a.Members[0].Weight = false, 1
				a.Errors = []string{"editing 198.51.100.1:80/tcp: no buffer space available\n"}
			}),
			asked: control.DrainRequest{Member: "lb7-1"}, exit: 1, stdout: "is drained on lb4-1",
			stderr: `lbctl: failed, and tried again each second: editing 198.51.100.1:80/tcp: no buffer space available\n
lbctl: the drain stands and is not in effect: 192.0.2.139 still has weight 1 in the kernel of lb4-1: see lbctl status
`,
		},
		{
			name: "the kernel could not be read", args: "drain lb7-1",
			answer: answering(func(a *control.DrainAnswer) { a.InEffect = false }),
			asked:  control.DrainRequest{Member: "lb7-1"}, exit: 1, stdout: "is drained on lb4-1",
			stderr: "lbctl: the drain stands, and whether it is in effect in the kernel of lb4-1 is not known yet: see lbctl status\n",
		},
		{
			name: "refused", args: "drain lb7-1", err: &control.Refusal{Status: 409, Reason: "with lb7-1 of pool lb7 drained, www has 0 of 2 members up, quorum 1: use --force"},
			asked: control.DrainRequest{Member: "lb7-1"}, exit: 1,
			stderr: "lbctl: with lb7-1 of pool lb7 drained, www has 0 of 2 members up, quorum 1: use --force\n",
		},
		{
			name: "undrain", args: "undrain lb7-1",
			answer: answering(func(a *control.DrainAnswer) {
				a.Was, a.Drained = hourAgo, nil
				a.Members[0] = control.Member{Pool: "lb7", Name: "lb7-1", Address: "192.0.2.139", State: "up", Weight: 1, ConfiguredWeight: 1, LastAnswer: "200 OK in 1ms"}
			}),
			asked: control.DrainRequest{Member: "lb7-1"},
			stdout: `lb7-1 of pool lb7 is no longer drained on lb4-1, after 1h0m: old disk

MEMBER  POOL  ADDRESS      STATE  FOR  WEIGHT  ACTIVE  INACTIVE  LAST ANSWER
lb7-1   lb7   192.0.2.139  up     -         1       0         0  200 OK in 1ms
`,
		},
		{
			name: "not drained", args: "undrain lb7-1",
			answer: answering(func(a *control.DrainAnswer) { a.Changed, a.Drained = false, nil }),
			asked:  control.DrainRequest{Member: "lb7-1"},
			stdout: "lb7-1 of pool lb7 was not drained on lb4-1\n",
		},
		{name: "no member", args: "drain", exit: 1, stderr: "it is lb4d that answers there, and it drains members: name one"},
		{name: "two members", args: "undrain lb7-1 lb7-2", exit: 2, stderr: `"lb7-2" is one argument too many: write lbctl undrain [MEMBER]`},
		{name: "a reason without its word", args: "drain lb7-1 --reason", exit: 2, stderr: "flag needs an argument"},
		{name: "undrain needs no force", args: "undrain lb7-1 --force", exit: 2, stderr: "unknown flag: --force"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, asked := obey(t, tt.answer, tt.err)
			args := append([]string{"-socket", path}, strings.Fields(tt.args)...)
			for i := range args {
				args[i] = strings.Replace(args[i], "NEW_DISK", "new disk", 1)
			}
			var stdout, stderr bytes.Buffer
			if exit := run(t.Context(), args, &stdout, &stderr); exit != tt.exit {
				t.Errorf("exit status %d, want %d", exit, tt.exit)
			}
			if diff := cmp.Diff(tt.asked, *asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			for name, s := range map[string]struct{ got, want string }{
				"stdout": {stdout.String(), tt.stdout}, "stderr": {stderr.String(), tt.stderr},
			} {
				if s.want == "" && s.got != "" || !strings.Contains(s.got, s.want) {
					t.Errorf("%s is\n%s\nwant in it\n%s", name, s.got, s.want)
				}
			}
		})
	}
}

// TestDrainJSON is for programs: what the daemon said, and nothing that a
// terminal would obey.
func TestDrainJSON(t *testing.T) {
	want := answering(func(a *control.DrainAnswer) { a.Warnings = []string{"a warning"} })
	path, _ := obey(t, want, nil)
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"drain", "lb7-1", "-o", "json", "-socket", path}, &stdout, &stderr); exit != 0 {
		t.Fatal(exit, stderr.String())
	}
	if strings.Contains(stdout.String(), "\x1b") || !strings.Contains(stderr.String(), "a warning") {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	got := &control.DrainAnswer{}
	if err := json.Unmarshal(stdout.Bytes(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// TestMemberCompletion offers the names that the verb can do something with.
func TestMemberCompletion(t *testing.T) {
	st := base()
	st.Members[1].Drained = &control.Drain{}
	six := st.Members[0]
	six.Address = "2001:db8::c000:28b"
	other := st.Members[1]
	other.Name, other.Pool, other.Drained = "lb7-2", "api", nil
	st.Members = append(st.Members, six, other)
	path := serve(t, st)
	for args, want := range map[string]string{
		"drain LB":       "lb7-1\n",
		"drain A":        "api/lb7-2\n",
		"drain lb7-1 X":  "",
		"undrain LB":     "lb7/lb7-2\n",
		"undrain lb7-1Z": "",
	} {
		words := strings.Fields(args)
		last := &words[len(words)-1]
		*last = map[string]string{"LB": "lb7", "A": "a", "X": "", "lb7-1Z": "lb7-1z"}[*last]
		var stdout, stderr bytes.Buffer
		run(t.Context(), append([]string{"__complete", "-socket", path}, words...), &stdout, &stderr)
		if got, _, _ := strings.Cut(stdout.String(), ":4\n"); got != want {
			t.Errorf("lbctl %q completes to %q, want %q", words, got, want)
		}
	}
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"__complete", "-socket", path + "x", "drain", ""}, &stdout, &stderr); exit != 0 || stdout.String() != ":4\n" {
		t.Errorf("without lb4d: exit status %d, %q", exit, stdout.String())
	}
}

// TestDrainedAlert: each drained member once, whatever its addresses do, and
// not more lines than a screen has.
func TestDrainedAlert(t *testing.T) {
	drain := &control.Drain{Since: at.Add(-time.Hour)}
	member := func(name, state string, active int) control.Member {
		return control.Member{Pool: "lb7", Name: name, State: state, Drained: drain, ActiveFlows: active}
	}
	show := func(members ...control.Member) string {
		p := &page{now: at}
		p.drained(members)
		return p.b.String()
	}
	for _, tt := range []struct{ got, want string }{
		{show(control.Member{Name: "a", State: "up"}), ""},
		{show(member("a", "draining", 0)), "DRAINED a of pool lb7 for 1h0m; draining, no flows left\n"},
		{show(member("a", "draining", 2), member("a", "draining", 3)), "DRAINED a of pool lb7 for 1h0m; draining, 5 flows left\n"},
		{show(member("a", "draining", 2), member("a", "down", 3)), "DRAINED a of pool lb7 for 1h0m; draining and down, 2 flows left\n"},
		{show(member("a", "down", 3)), "DRAINED a of pool lb7 for 1h0m; down\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	var many []control.Member
	for i := range 1024 {
		many = append(many, member(fmt.Sprint(i), "draining", 0))
	}
	if got := show(many...); strings.Count(got, "\n") != maxDrained+1 || !strings.HasSuffix(got, "DRAINED and 1016 more members\n") {
		t.Errorf("of 1024 drained members it shows\n%s", got)
	}
}

func TestFlowsLeft(t *testing.T) {
	for _, tt := range []struct {
		active, inactive int
		want             string
	}{
		{0, 0, "no flows left"},
		{1, 0, "1 flow left"},
		{12, 0, "12 flows left"},
		{12, 33, "45 flows left, 12 active"},
		{0, 33, "33 flows left, none active"},
		{0, 1, "1 flow left, none active"},
	} {
		if got := flowsLeft(control.Member{ActiveFlows: tt.active, InactiveFlows: tt.inactive}); got != tt.want {
			t.Errorf("%d active, %d inactive: %q, want %q", tt.active, tt.inactive, got, tt.want)
		}
	}
}
