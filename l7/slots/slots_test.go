package slots

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A history is told in lines of "TIME DO WHAT | RESULT". DO is list (servers,
// as NAME or NAME@PORT, with !: excluded, =N: of weight N, in /GROUP), pass
// (servers whose check passes), tick (time goes on without a list), confirm.
//
// In the result, 1=a is slot 1 with server a ready; 1=a! drains; 1=a:3/10 has
// weight 3 of 10; a slot without a server is left out. Then come, where there
// are any, waiting, overflow, held, refused and next.
func TestHistories(t *testing.T) {
	plain := Policy{Slots: 4, Rest: time.Minute, MaxShrink: 50, Persist: 5 * time.Minute, Weight: 1}
	ramped := plain
	ramped.Weight, ramped.Ramp = 10, Ramp{From: 1, Step: 3, Every: 30 * time.Second}
	immediate := plain
	immediate.Rest = 0
	small := plain
	small.Slots = 2

	for _, tt := range []struct {
		name    string
		policy  Policy
		history string
	}{
		{"the first list takes the lowest slots, in the order of the names", plain, `
			0s  list c a b   | 1=a 2=b 3=c
			1s  list b c a   | 1=a 2=b 3=c
		`},
		{"a server keeps its slot when others go", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a c d   | 1=a 3=c 4=d
			2s  list a d     | 1=a 4=d
		`},
		{"a freed slot rests before another server has it", plain, `
			0s  list a b c   | 1=a 2=b 3=c
			10s list a c     | 1=a 3=c
			11s list a c d   | 1=a 3=c 4=d
			12s list a c d e | 1=a 3=c 4=d waiting e next 1m10s
			69s list a c d e | 1=a 3=c 4=d waiting e next 1m10s
			70s list a c d e | 1=a 2=e 3=c 4=d
		`},
		{"it does not rest where the policy says so", immediate, `
			0s  list a b c   | 1=a 2=b 3=c
			1s  list a c d   | 1=a 2=d 3=c
		`},
		{"a server that comes back finds its slot, rested or not", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a c     | 1=a 3=c
			2s  list a c d b | 1=a 2=b 3=c 4=d
		`},
		{"a server that comes back does not drive out the one that has its slot", immediate, `
			0s  list a b     | 1=a 2=b
			1s  list a       | 1=a
			2s  list a c     | 1=a 2=c
			3s  list a b c   | 1=a 2=c 3=b
		`},
		{"too many servers: an alarm, by name, and those that have slots keep them", small, `
			0s  list b c     | 1=b 2=c
			1s  list a b c d | 1=b 2=c overflow a d
			2s  list a b d   | 1=b waiting a overflow d next 1m2s
			62s list a b d   | 1=b 2=a overflow d
		`},
		{"excluded: drained in its slot, and back", plain, `
			0s  list a b c   | 1=a 2=b 3=c
			1s  list a b! c  | 1=a 2=b! 3=c
			2s  list a b c   | 1=a 2=b 3=c
		`},
		{"excluded from the start: it has a slot and drains", plain, `
			0s  list a! b    | 1=a! 2=b
		`},
		{"another address is the same server", plain, `
			0s  list a b c   | 1=a 2=b 3=c
			1s  list a b@99 c | 1=a 2=b@99 3=c
		`},
		{"two servers that exchange their addresses", plain, `
			0s  list a@1 b@2 | 1=a@1 2=b@2
			1s  list a@2 b@1 | 1=a@2 2=b@1
		`},
		{"renamed: the address tells that it is the same server", plain, `
			0s  list a@1 b@2 c@3 | 1=a@1 2=b@2 3=c@3
			1s  list a@1 x@2 c@3 | 1=a@1 2=x@2 3=c@3
		`},
		{"all of them renamed, as when the source changes", plain, `
			0s  list a@1 b@2 c@3 | 1=a@1 2=b@2 3=c@3
			1s  list z@1 y@2 x@3 | 1=z@1 2=y@2 3=x@3
		`},
		{"a server moves to the address of one that is gone", plain, `
			0s  list a@1 b@2 c@3 | 1=a@1 2=b@2 3=c@3
			1s  list b@1 c@3     | 2=b@1 3=c@3
		`},
		{"a server in two slots is asked for: the address decides who was first", plain, `
			0s  list b@7     | 1=b@7
			1s  list a@7 b@7 | 1=b@7 refused a
		`},
		{"the list halves: that is not more than half", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a d     | 1=a 4=d
		`},
		{"the list shrinks too much: held back until it has persisted", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a       | 1=a 2=b 3=c 4=d held 1 next 5m1s
			9s  list a       | 1=a 2=b 3=c 4=d held 1 next 5m1s
			301s list a      | 1=a
		`},
		{"the list is empty: held back even where it may shrink", Policy{Slots: 4, MaxShrink: 100, Persist: 5 * time.Minute}, `
			0s  list a b     | 1=a:0 2=b:0
			1s  list         | 1=a:0 2=b:0 held 0 next 5m1s
			301s list        |
		`},
		{"it comes back: as if nothing had been", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a       | 1=a 2=b 3=c 4=d held 1 next 5m1s
			60s list a b c   | 1=a 2=b 3=c
			61s list a       | 1=a 2=b 3=c held 1 next 6m1s
		`},
		{"it shrinks again while held: that is news again", plain, `
			0s   list a b c d e | 1=a 2=b 3=c 4=d overflow e
			1s   list a b       | 1=a 2=b 3=c 4=d held 2 next 5m1s
			300s list           | 1=a 2=b 3=c 4=d held 0 next 10m0s
			301s list           | 1=a 2=b 3=c 4=d held 0 next 10m0s
			600s list           |
		`},
		{"confirmed: believed at once", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a       | 1=a 2=b 3=c 4=d held 1 next 5m1s
			2s  confirm      | 1=a 2=b 3=c 4=d held 1
			3s  list a       | 1=a
		`},
		{"what was confirmed does not cover what came after", plain, `
			0s  list a b c d | 1=a 2=b 3=c 4=d
			1s  list a       | 1=a 2=b 3=c 4=d held 1 next 5m1s
			2s  confirm      | 1=a 2=b 3=c 4=d held 1
			3s  list         | 1=a 2=b 3=c 4=d held 0 next 5m3s
		`},
		{"while held, new servers come and others change", plain, `
			0s  list a b c   | 1=a 2=b 3=c
			1s  list a!      | 1=a! 2=b 3=c held 1 next 5m1s
			2s  list d       | 1=a! 2=b 3=c 4=d held 1 next 5m1s
		`},
		{"while held, a server at a new one's address is surely gone", plain, `
			0s  list a@1 b@2 c@3 | 1=a@1 2=b@2 3=c@3
			1s  list a@2         | 1=a@2 3=c@3 held 1 next 5m1s
		`},
		{"all are replaced: the list has not shrunk", Policy{Slots: 8, Rest: time.Minute, MaxShrink: 50, Persist: time.Minute, Weight: 1}, `
			0s  list a b c   | 1=a 2=b 3=c
			1s  list d e f   | 4=d 5=e 6=f
		`},
		{"a ramp begins at the first passing check, not at the discovery", ramped, `
			0s   list a      | 1=a:1/10
			50s  list a      | 1=a:1/10
			60s  pass a      | 1=a:1/10
			60s  tick        | 1=a:1/10 next 1m30s
			89s  list a      | 1=a:1/10 next 1m30s
			90s  list a      | 1=a:4/10 next 2m0s
			120s tick        | 1=a:7/10 next 2m30s
			150s tick        | 1=a:10
		`},
		{"a check that passes again does not begin it anew", ramped, `
			0s   list a      | 1=a:1/10
			1s   pass a      | 1=a:1/10
			31s  tick        | 1=a:4/10 next 1m1s
			32s  pass a      | 1=a:4/10
			61s  tick        | 1=a:7/10 next 1m31s
		`},
		{"whoever takes over makes up for what was missed", ramped, `
			0s   list a      | 1=a:1/10
			1s   pass a      | 1=a:1/10
			66s  tick        | 1=a:7/10 next 1m31s
			9999s tick       | 1=a:10
		`},
		{"a weight of its own is where the ramp ends", ramped, `
			0s   list a=3 b=0 c=100 | 1=a:1/3 2=b:0 3=c:1/100
			1s   pass a b c         | 1=a:1/3 2=b:0 3=c:1/100
			31s  tick               | 1=a:3 2=b:0 3=c:4/100 next 1m1s
		`},
		{"a server at its full weight gets another one at once", ramped, `
			0s   list a=1    | 1=a
			1s   pass a      | 1=a:1
			2s   list a=9    | 1=a:9
			3s   list a=2    | 1=a:2
		`},
		{"a server on its ramp goes on to the other end", ramped, `
			0s   list a      | 1=a:1/10
			1s   pass a      | 1=a:1/10
			2s   list a=200  | 1=a:1/200 next 31s
			31s  list a=200  | 1=a:4/200 next 1m1s
			32s  list a=2    | 1=a:2
		`},
		{"a server at another address ramps again", ramped, `
			0s   list a=2    | 1=a:1/2
			1s   pass a      | 1=a:1/2
			31s  tick        | 1=a:2
			32s  list a@99=2 | 1=a@99:1/2
			33s  pass a      | 1=a@99:1/2
			63s  tick        | 1=a@99:2
		`},
		{"a bad description of a server that has a slot: it keeps the slot as it was", plain, `
			0s  list a@80 b  | 1=a@80 2=b
			1s  list a@99999 b | 1=a@80 2=b refused a
		`},
	} {
		t.Run(tt.name, func(t *testing.T) { tell(t, tt.policy, tt.history) })
	}
}

// What was agreed on stays where slots are fewer later: a server's life is
// longer than a configuration's.
func TestFewerSlots(t *testing.T) {
	p := Policy{Slots: 4, Weight: 1, MaxShrink: 50}
	r, _ := Assign(Record{}, servers("a b c d"), epoch, p)
	p.Slots = 2
	r, c := Assign(r, servers("a b c d e f"), epoch, p)
	if got, want := show(r, c, epoch), "1=a 2=b 3=c 4=d overflow e f"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r, c = Assign(r, servers("a e c f"), epoch, p)
	if got, want := show(r, c, epoch), "1=a 2=e 3=c overflow f"; got != want || len(r.Slots) != 3 {
		t.Errorf("got  %s in %d slots\nwant %s", got, len(r.Slots), want)
	}
}

// A ramp whose last step is said to be hours ahead does not wait for hours.
func TestRampFromTheFuture(t *testing.T) {
	p := Policy{Slots: 1, Weight: 10, Ramp: Ramp{From: 1, Step: 3, Every: 30 * time.Second}}
	r, _ := Assign(Record{}, servers("a"), epoch, p)
	r, _ = Pass(r, passing(r, []string{"a"}), epoch.Add(2*time.Hour))
	r, _ = Advance(r, epoch.Add(time.Second), p)
	r, c := Advance(r, epoch.Add(31*time.Second), p)
	if got, want := show(r, c, epoch), "1=a:4/10 next 1m1s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

var serverForm = regexp.MustCompile(`^([a-z0-9]+)(?:@(\d+))?(!?)(?:=(\d+))?(?:/(\w+))?$`)

// servers reads the servers of a history's line. Each has a port of its own
// where none is given.
func servers(text string) []Server {
	var list []Server
	for _, f := range strings.Fields(text) {
		m := serverForm.FindStringSubmatch(f)
		if m == nil {
			panic(f)
		}
		s := Server{ID: m[1], Addr: netip.MustParseAddr("192.0.2.1"), Port: 1000 + int(m[1][0]), Weight: NoWeight, Exclude: m[3] != "", Group: m[5]}
		if m[2] != "" {
			s.Port, _ = strconv.Atoi(m[2])
		}
		if m[4] != "" {
			s.Weight, _ = strconv.Atoi(m[4])
		}
		list = append(list, s)
	}
	return list
}

// tell carries out a history, and each line twice: the second time nothing may
// change.
func tell(t *testing.T, p Policy, history string) {
	t.Helper()
	var r Record
	for line := range strings.Lines(strings.TrimSpace(history)) {
		do, want, _ := strings.Cut(strings.TrimSpace(line), "|")
		f := strings.Fields(do)
		at, err := time.ParseDuration(f[0])
		if err != nil {
			t.Fatal(err)
		}
		now, what := epoch.Add(at), strings.Join(f[2:], " ")
		act := func(r Record) (Record, Changes) {
			switch f[1] {
			case "list":
				return Assign(r, servers(what), now, p)
			case "tick":
				return Advance(r, now, p)
			case "pass":
				return Pass(r, passing(r, f[2:]), now)
			case "confirm":
				r, _ = Confirm(r)
				return r, Changes{}
			}
			t.Fatalf("no %s", f[1])
			return r, Changes{}
		}
		next, c := act(r)
		if got, want := show(next, c, epoch), strings.TrimSpace(want); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", do, got, want)
		}
		if c.Changed == r.Equal(next) && f[1] != "confirm" {
			t.Errorf("%s: Changed is %v", do, c.Changed)
		}
		if err := next.Check(); err != nil {
			t.Errorf("%s: %v", do, err)
		}
		r = throughStore(t, next)
		if again, c := act(r); !again.Equal(r) || c.Changed || len(c.Events) > 0 {
			t.Errorf("%s, the second time: %v", do, c.Events)
		}
	}
}

// passing are those servers, where they are.
func passing(r Record, ids []string) []Passing {
	var seen []Passing
	for _, s := range r.Slots {
		for _, id := range ids {
			if s.ID == id {
				seen = append(seen, Passing{s.Number, s.Addr})
			}
		}
	}
	return seen
}

// throughStore writes the record and reads it again.
func throughStore(t *testing.T, r Record) Record {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !r.Equal(back) {
		t.Fatalf("through JSON, %+v\nbecomes %+v", r, back)
	}
	return back
}

// show is a record and its changes as a history's line ends.
func show(r Record, c Changes, since time.Time) string {
	var parts []string
	for _, s := range r.Slots {
		if s.State == Free {
			continue
		}
		text := fmt.Sprintf("%d=%s", s.Number, s.ID)
		if s.Addr.Port() < 1000 {
			text += fmt.Sprintf("@%d", s.Addr.Port())
		}
		if s.State == Drain {
			text += "!"
		}
		switch {
		case s.Weight != s.Full:
			text += fmt.Sprintf(":%d/%d", s.Weight, s.Full)
		case s.Weight != 1 || !s.RampedAt.IsZero():
			text += fmt.Sprintf(":%d", s.Weight)
		}
		parts = append(parts, text)
	}
	add := func(what string, names []string) {
		if len(names) > 0 {
			parts = append(parts, what, strings.Join(names, " "))
		}
	}
	add("waiting", c.Waiting)
	add("overflow", c.Overflow)
	if r.Held != nil {
		add("held", []string{fmt.Sprint(r.Held.Size)})
	}
	for _, r := range c.Refused {
		add("refused", []string{r.Server})
	}
	if !c.Next.IsZero() {
		add("next", []string{c.Next.Sub(since).String()})
	}
	return strings.Join(parts, " ")
}
