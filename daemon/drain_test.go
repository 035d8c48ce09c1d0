package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
)

// asked has the daemon carry out one request, as the loop does.
func asked(t *testing.T, d *Daemon, undrain bool, r control.DrainRequest) (*control.DrainAnswer, error) {
	t.Helper()
	do := func() (func() any, error) {
		carry := d.drain
		if undrain {
			carry = d.undrain
		}
		answer, err := d.changed(carry(r))
		return func() any { return answer() }, err
	}
	replies := make(chan reply, 1)
	if answer := d.take(request{ctx: t.Context(), do: do, reply: replies}); answer != nil {
		d.pass()
		answer()
	}
	got := <-replies
	a, _ := got.answer.(*control.DrainAnswer)
	return a, got.err
}

func drain(t *testing.T, d *Daemon, member, reason string) *control.DrainAnswer {
	t.Helper()
	a, err := asked(t, d, false, control.DrainRequest{Member: member, Reason: reason})
	if err != nil {
		t.Fatalf("draining %s: %v", member, err)
	}
	return a
}

func undrain(t *testing.T, d *Daemon, member string) *control.DrainAnswer {
	t.Helper()
	a, err := asked(t, d, true, control.DrainRequest{Member: member})
	if err != nil {
		t.Fatalf("undraining %s: %v", member, err)
	}
	return a
}

// announcing is a daemon that announces cfg, with a clean page and log.
func announcing(t *testing.T, text string) (*world, *Daemon) {
	t.Helper()
	cfg := parse(t, text)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	d.pass()
	w.since()
	w.log.Reset()
	return w, d
}

// named is leastConfig with names for its members.
var named = strings.Replace(leastConfig, `members = ["192.0.2.139", "192.0.2.140"]`, `
member.lb7-1.address = "192.0.2.139"
member.lb7-2.address = "192.0.2.140"`, 1)

// TestDrainMember: weight 0 in the kernel and flows kept; everything tells why;
// and back.
func TestDrainMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		start := time.Now().UTC()
		w.tableNow[0].Destinations[0].ActiveConns, w.tableNow[0].Destinations[0].InactiveConns = 12, 3
		time.Sleep(time.Minute)

		a := drain(t, d, "lb7-1", " new disk ")
		since := time.Now().UTC()
		expect(t, "drained", w.since(),
			"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)")
		expect(t, "log", w.log.String(),
			`level=INFO msg="member drained" pool=lb7 member=lb7-1 reason="new disk" forced=false
level=INFO msg="ipvs: edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)"`)
		drained := &control.Drain{Reason: "new disk", Since: since}
		member := control.Member{
			Pool: "lb7", Name: "lb7-1", Address: "192.0.2.139", VIPFamily: "ipv4",
			State:  "draining",
			Reason: "draining: drained by the operator: new disk, since 2000-01-01T00:01:00Z", Since: since,
			Drained: drained, ConfiguredWeight: 1, LastAnswer: "200 OK", ActiveFlows: 12, InactiveFlows: 3,
		}
		want := &control.DrainAnswer{
			Host: w.status.Host, Pool: "lb7", Member: "lb7-1", Changed: true, Drained: drained, InEffect: true,
			Members: []control.Member{member}, Errors: []string{},
		}
		if diff := cmp.Diff(want, a); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(member, w.status.Members[0]); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		if got, want := w.status.Summary, "1 of 1 VIPs announced to 0 of 0 peers, 1 of 2 members up, 1 drained by the operator"; got != want {
			t.Errorf("summary %q, want %q", got, want)
		}

		// The check says otherwise, and is not heard.
		w.are(d.cfg, health.Up)
		d.pass()
		expect(t, "another pass", w.since(), "")

		time.Sleep(time.Minute)
		w.log.Reset()
		a = undrain(t, d, "lb7-1")
		expect(t, "undrained", w.since(),
			"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip (was weight 0 of 1 ipip)")
		if !strings.Contains(w.log.String(), `msg="member undrained" pool=lb7 member=lb7-1 after=1m0s reason="new disk"`) {
			t.Errorf("logged\n%s", w.log.String())
		}
		if !a.Changed || a.Drained != nil || !cmp.Equal(a.Was, drained) {
			t.Errorf("answer %+v, want a change from %+v to none", a, drained)
		}
		m := w.status.Members[0]
		if m.State != "up" || m.Drained != nil || m.Weight != 1 || !m.Since.Equal(time.Now()) {
			t.Errorf("undrained, the status shows %+v, want it up with its weight, since now", m)
		}
		if m := w.status.Members[1]; !m.Since.Before(start.Add(2 * time.Minute)) {
			t.Errorf("the other member is shown to have changed at %s", m.Since)
		}
	})
}

// TestDrainTwice: what is so already is no fault, and no write.
func TestDrainTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		a := undrain(t, d, "lb7-1")
		if a.Changed || a.Was != nil || a.Drained != nil || len(a.Members) != 1 {
			t.Errorf("undrained without a drain: answer %+v", a)
		}
		drain(t, d, "lb7-1", "new disk")
		since := time.Now().UTC()
		w.since()
		w.log.Reset()
		time.Sleep(time.Hour)
		for _, reason := range []string{"", "new disk"} {
			a := drain(t, d, "lb7-1", reason)
			want := &control.Drain{Reason: "new disk", Since: since}
			if a.Changed || !cmp.Equal(a.Was, want) || !cmp.Equal(a.Drained, want) {
				t.Errorf("drained again for %q: answer %+v, want no change", reason, a)
			}
		}
		expect(t, "drained again", w.since()+w.log.String(), "")

		a = drain(t, d, "lb7-1", "new mainboard")
		if !a.Changed || a.Was.Reason != "new disk" || a.Drained.Reason != "new mainboard" || !a.Drained.Since.Equal(since) {
			t.Errorf("with another reason: answer %+v", a)
		}
		expect(t, "with another reason", w.since(), "")
		if got, want := w.status.Members[0].Reason, "draining: drained by the operator: new mainboard, since 2000-01-01T00:00:00Z"; got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
	})
}

// TestDrainDownMember: it is down, and once it answers again it drains.
func TestDrainDownMember(t *testing.T) {
	w, d := announcing(t, named)
	target := health.Target{Pool: "lb7", Member: "lb7-1", Addr: d.cfg.Pools[0].Members[0].Address}
	w.statuses[target] = health.Status{State: health.Down, LastAnswer: "connection refused", FailingSince: time.Now()}
	drain(t, d, "lb7-1", "")
	w.since()
	m := w.status.Members[0]
	if m.State != "down" || m.Drained == nil || !strings.HasPrefix(m.Reason, "down: connection refused; drained by the operator, since ") {
		t.Errorf("status %+v, want down, and drained", m)
	}
	w.statuses[target] = health.Status{State: health.Up, LastAnswer: "200 OK"}
	d.pass()
	expect(t, "when it answers again", w.since(), "")
	if m := w.status.Members[0]; m.State != "draining" || m.Weight != 0 {
		t.Errorf("status %+v, want it draining at weight 0", m)
	}
}

// TestDrainRefused: what cannot be done is not done, and the words say what can.
func TestDrainRefused(t *testing.T) {
	two := named + `
[pool.api]
member.lb7-1.address = "192.0.2.150"
member.api-1.address = "192.0.2.151"
check = { tcp = true, port = 80 }
`
	for _, tt := range []struct {
		name, config, member, reason string
		status                       int
		want                         string
	}{
		{"an unknown member", named, "lb7-9", "", 404, `there is no member "lb7-9": name one of lb7-1, lb7-2`},
		{"none", named, "", "", 404, `there is no member "": name one of lb7-1, lb7-2`},
		{"an address", named, "192.0.2.139", "", 404, `there is no member "192.0.2.139": name one of lb7-1, lb7-2`},
		{"an unknown pool", named, "web/lb7-1", "", 404, `there is no member "web/lb7-1": name one of lb7-1, lb7-2`},
		{"no pool before the slash", named, "/lb7-1", "", 404, `there is no member "/lb7-1": name one of lb7-1, lb7-2`},
		{"control characters", named, "a\x1b[2J\n", "", 404, `there is no member "a\x1b[2J\n": name one of lb7-1, lb7-2`},
		{"a name in two pools", two, "lb7-1", "", 400, `2 pools have a member lb7-1: name one of api/lb7-1, lb7/lb7-1`},
		{"names in two pools", two, "x", "", 404, `there is no member "x": name one of api-1, api/lb7-1, lb7/lb7-1, lb7-2`},
		{"a long reason", named, "lb7-1", strings.Repeat("é", 101), 400, "the reason has 202 bytes: write at most 200"},
		{"a reason of two lines", named, "lb7-1", "new\ndisk", 400,
			"the reason holds a character that does not print, at byte 4: write it on one line, without control characters"},
		{"a reason with an escape", named, "lb7-1", "\x1b[31mnew disk", 400,
			"the reason holds a character that does not print, at byte 1: write it on one line, without control characters"},
		{"a reason that is no text", named, "lb7-1", "new \xff disk", 400, "the reason is not UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, d := announcing(t, tt.config)
			_, err := asked(t, d, false, control.DrainRequest{Member: tt.member, Reason: tt.reason, Force: true})
			var refusal *control.Refusal
			if !errors.As(err, &refusal) || refusal.Status != tt.status || refusal.Reason != tt.want {
				t.Errorf("got  %v\nwant %d %s", err, tt.status, tt.want)
			}
			if w.since() != "" || w.log.Len() > 0 || len(d.memory.drains) > 0 {
				t.Errorf("something was done: drains %v, log %s", d.memory.drains, w.log.String())
			}
			if tt.reason == "" {
				if _, err := asked(t, d, true, control.DrainRequest{Member: tt.member}); !errors.As(err, &refusal) || refusal.Reason != tt.want {
					t.Errorf("undrain: got %v, want %s", err, tt.want)
				}
			}
		})
	}
	_, d := announcing(t, two)
	for _, member := range []string{"lb7/lb7-1", "api/lb7-1", "api-1"} {
		if a := drain(t, d, member, strings.Repeat("é", 100)); !strings.HasSuffix("/"+member, "/"+a.Member) {
			t.Errorf("draining %s: answer is of %s of pool %s", member, a.Member, a.Pool)
		}
	}
	if got, want := few(d.memory.drained()), "api/api-1 api/lb7-1 lb7/lb7-1"; got != want {
		t.Errorf("drained %s, want %s", got, want)
	}
}

// TestDrainLastMember: nobody withdraws a VIP by a drain without saying so.
func TestDrainLastMember(t *testing.T) {
	w, d := announcing(t, named)
	drain(t, d, "lb7-2", "")
	w.since()
	_, err := asked(t, d, false, control.DrainRequest{Member: "lb7-1"})
	var refusal *control.Refusal
	const want = "with lb7-1 of pool lb7 drained, www has 0 of 2 members up, quorum 1: VIPs would be withdrawn; to drain it all the same, use --force"
	if !errors.As(err, &refusal) || refusal.Status != 409 || refusal.Reason != want {
		t.Fatalf("got %v, want 409 %s", err, want)
	}
	d.pass()
	expect(t, "refused", w.since(), "")

	a, err := asked(t, d, false, control.DrainRequest{Member: "lb7-1", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"VIPs are withdrawn: www has 0 of 2 members up, quorum 1"}, a.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	expect(t, "forced", w.since(), `
withdraw 198.51.100.1/32
edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)
`)
	if !strings.Contains(w.log.String(), "member=lb7-1 reason=\"\" forced=true") {
		t.Errorf("logged\n%s", w.log.String())
	}

	// The service is lost already: another drain costs nothing more.
	w.are(d.cfg, health.Down)
	undrain(t, d, "lb7-1")
	w.since()
	drain(t, d, "lb7-1", "")
}

// TestDrainNotInEffect: the answer does not say that new flows stay away while
// they do not, or nobody knows; the passes that follow go on trying.
func TestDrainNotInEffect(t *testing.T) {
	w, d := announcing(t, named)
	w.failApply = func(l4.Op) error { return errors.New("no buffer space available") }
	a := drain(t, d, "lb7-1", "")
	if a.InEffect || a.Members[0].Weight != 1 || a.Members[0].State != "draining" || len(a.Errors) != 1 {
		t.Errorf("with a kernel that refuses: answer %+v", a)
	}
	w.failApply, w.failList = nil, errors.New("interrupted system call")
	if a = drain(t, d, "lb7-1", ""); a.InEffect {
		t.Errorf("with a kernel that cannot be asked: answer %+v", a)
	}
	w.failList = nil
	if a = drain(t, d, "lb7-1", ""); !a.InEffect || a.Members[0].Weight != 0 {
		t.Errorf("when it can: answer %+v", a)
	}
	expect(t, "done", w.since(),
		"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)")
}

// TestDrainWhileStarting: before the checks have answered, nobody knows what a
// drain costs.
func TestDrainWhileStarting(t *testing.T) {
	cfg := parse(t, named)
	w, d := newWorld(t, cfg)
	d.pass()
	_, err := asked(t, d, false, control.DrainRequest{Member: "lb7-1"})
	var refusal *control.Refusal
	if !errors.As(err, &refusal) || refusal.Status != 503 || !strings.Contains(refusal.Reason, "lb4d is starting") {
		t.Errorf("got %v, want 503 and that it is starting", err)
	}
	a, err := asked(t, d, false, control.DrainRequest{Member: "lb7-1", Force: true})
	if err != nil || len(a.Warnings) != 1 || a.InEffect {
		t.Fatalf("forced: answer %+v, %v; want it to stand, with a warning, and not in effect", a, err)
	}
	expect(t, "while starting", w.since(), "")
	w.are(cfg, health.Up)
	d.pass()
	if got := w.since(); !strings.Contains(got, "add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip") {
		t.Errorf("once it runs, done:\n%s\nwant the member with its slots and weight 0", got)
	}
	undrain(t, d, "lb7-1")
}

// TestDrainSurvivesRestart: the next process drains before it has asked any
// check, and writes nothing where the kernel is as it should be.
func TestDrainSurvivesRestart(t *testing.T) {
	w, d := announcing(t, named)
	drain(t, d, "lb7-1", `disk "sda" <100%>`)
	w.since()
	data, err := os.ReadFile(d.memory.path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"reason":"disk \"sda\" <100%>"`) {
		t.Errorf("state file %s", data)
	}

	_, next := newWorld(t, d.cfg)
	next.health, next.maintenance, next.table, next.host, next.routes, next.peers = d.health, d.maintenance, w, w, w, w
	next.show = d.show
	if next.memory, err = recall(filepath.Dir(d.memory.path)); err != nil {
		t.Fatal(err)
	}
	next.dropDrains()
	next.pass()
	expect(t, "the next process", w.since(), "")
	if m := w.status.Members[0]; m.State != "draining" || m.Drained == nil || m.Drained.Reason != `disk "sda" <100%>` || !m.Since.Equal(m.Drained.Since) {
		t.Errorf("status %+v, want it drained as before", m)
	}
	if a := undrain(t, next, "lb7-1"); a.Was == nil {
		t.Errorf("answer %+v, want that it was drained", a)
	}
	if again, err := recall(filepath.Dir(d.memory.path)); err != nil || len(again.drains) > 0 {
		t.Errorf("undrained, the state file still has %v, %v", again.drains, err)
	}
}

// TestDrainNotWritten: a drain that a restart would forget is refused, and so
// is the end of one that a restart would bring back.
func TestDrainNotWritten(t *testing.T) {
	w, d := announcing(t, named)
	good, bad := d.memory.path, unwritable(t)
	refused := func(undrain bool, want string) {
		t.Helper()
		d.memory.path = bad
		_, err := asked(t, d, undrain, control.DrainRequest{Member: "lb7-1"})
		var refusal *control.Refusal
		if !errors.As(err, &refusal) || refusal.Status != 500 || !strings.Contains(refusal.Reason, want) || !strings.Contains(refusal.Reason, "not a directory") {
			t.Errorf("got %v, want 500 with %q", err, want)
		}
		d.pass()
		expect(t, "refused", w.since(), "")
		d.memory.path = good
	}
	refused(false, "lb7-1 of pool lb7 is not drained, because a restart of lb4d would forget it: writing state: ")
	drain(t, d, "lb7-1", "")
	w.since()
	refused(true, "lb7-1 of pool lb7 stays drained, because a restart of lb4d would drain it again: writing state: ")
}

// TestStateWrittenLater: what could not be written is written by a later pass,
// and the status shows the fault meanwhile.
func TestStateWrittenLater(t *testing.T) {
	w, d := announcing(t, named)
	drain(t, d, "lb7-1", "")
	good := d.memory.path
	d.memory.path = unwritable(t)
	d.cfg = parse(t, strings.Replace(named, `member.lb7-1.address = "192.0.2.139"`, "", 1))
	d.dropDrains()
	for range 2 {
		d.pass()
		if len(w.status.Errors) == 0 || !strings.HasPrefix(w.status.Errors[0], "writing state: ") {
			t.Errorf("status has errors %q, want that the state was not written", w.status.Errors)
		}
	}
	d.memory.path = good
	d.pass()
	if again, err := recall(filepath.Dir(good)); err != nil || len(again.drains) > 0 || len(w.status.Errors) > 0 {
		t.Errorf("once it can be written it has drains %v, %v; status has errors %q", again.drains, err, w.status.Errors)
	}
}

// unwritable is the path of a state file that cannot be written, by root
// neither.
func unwritable(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(file, "lb4d.json")
}

// TestReloadDropsDrains: a member that has left takes its drain with it.
func TestReloadDropsDrains(t *testing.T) {
	w, d, rewrite := reloadWorld(t)
	drain(t, d, "192.0.2.140", "new disk")
	w.since()
	w.log.Reset()
	rewrite(`drain_time = "0s"`, `drain_time = "1s"`)
	d.reload()
	d.pass()
	if len(d.memory.drains) != 1 || strings.Contains(w.log.String(), "dropped") {
		t.Errorf("a reload that keeps the member: drains %v, log\n%s", d.memory.drains, w.log.String())
	}
	w.since()
	rewrite(`"192.0.2.139", "192.0.2.140"`, `"192.0.2.139"`)
	d.reload()
	if !strings.Contains(w.log.String(), `msg="drain dropped, the member has left the configuration" pool=lb7 member=192.0.2.140 after=0s reason="new disk"`) {
		t.Errorf("logged\n%s", w.log.String())
	}
	d.pass()
	again, err := recall(filepath.Dir(d.memory.path))
	if err != nil || len(again.drains) > 0 || len(again.owned) != 1 {
		t.Errorf("the state file has drains %v and VIPs %v, %v; want none and one", again.drains, again.owned, err)
	}
	if err := os.WriteFile(d.opts.ConfigPath, []byte(leastConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	w.since()
	d.reload()
	d.pass()
	if got := w.status.Members[1]; got.State != "up" || got.Drained != nil {
		t.Errorf("back in the configuration it is %+v, want it up", got)
	}
}

// TestDrainsAreBounded: in number, and whatever the state file holds.
func TestDrainsAreBounded(t *testing.T) {
	var members strings.Builder
	for i := range maxDrains {
		fmt.Fprintf(&members, "member.m%04d.address = \"10.0.%d.%d\"\n", i, i>>8, i&255)
	}
	text := strings.Replace(named, "[pool.lb7.check]", `[pool.other]
member.last.address = "192.0.2.150"
check = { tcp = true, port = 80 }
[pool.big]
`+members.String()+`check = { tcp = true, port = 80 }
[pool.lb7.check]`, 1)
	_, d := announcing(t, text)
	drains := map[plan.MemberName]plan.Drain{}
	for i := range maxDrains {
		drains[plan.MemberName{Pool: "big", Member: fmt.Sprintf("m%04d", i)}] = plan.Drain{Reason: strings.Repeat(`"`, maxReason), Since: time.Now()}
	}
	if err := d.memory.setDrains(drains); err != nil {
		t.Fatal(err)
	}
	_, err := asked(t, d, false, control.DrainRequest{Member: "last", Force: true})
	if want := "1024 members are drained already: undrain one first"; err == nil || err.Error() != want {
		t.Errorf("one more: got %v, want %s", err, want)
	}
	drain(t, d, "m0000", "another reason")
	if info, err := os.Stat(d.memory.path); err != nil || info.Size() > maxStateFile {
		t.Errorf("the state file has %d bytes, of at most %d; %v", info.Size(), maxStateFile, err)
	}
	again, err := recall(filepath.Dir(d.memory.path))
	if err != nil || len(again.drains) != maxDrains {
		t.Errorf("read back: %d drains, %v", len(again.drains), err)
	}
}

// TestRecallForeignState: a file that somebody has edited is believed as far as
// a request could have led to it.
func TestRecallForeignState(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "lb4d.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"vips":["198.51.100.1"],"drains":[
{"pool":"lb7","member":"lb7-1","reason":"a\u001b[2Jb","since":"2026-03-01T03:00:00Z"},
{"pool":"lb7","member":"lb7-2","reason":"new disk"}],"from_a_later_version":1}`)
	m, err := recall(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[plan.MemberName]plan.Drain{
		{Pool: "lb7", Member: "lb7-1"}: {Since: time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)},
		{Pool: "lb7", Member: "lb7-2"}: {Reason: "new disk"},
	}
	if diff := cmp.Diff(want, m.drains); diff != "" {
		t.Errorf("drains (-want +got):\n%s", diff)
	}
	write(`{"vips":["198.51.100.1"]}`) // as an earlier version wrote it
	if m, err := recall(dir); err != nil || len(m.drains) > 0 || len(m.owned) != 1 {
		t.Errorf("an earlier version's file: %v %v, %v", m.drains, m.owned, err)
	}
	many := make([]savedDrain, 2*maxDrains)
	for i := range many {
		many[i].Member = fmt.Sprint(i)
	}
	if got := len(restored(many)); got != maxDrains {
		t.Errorf("%d drains in the file become %d, want %d", len(many), got, maxDrains)
	}
}
