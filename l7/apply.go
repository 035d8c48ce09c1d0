package l7

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// Applier keeps one back end of one HAProxy equal to a share of a record. It
// is used by one goroutine.
type Applier struct {
	client  *runtime.Client
	backend string
	prefix  string

	process runtime.Info // the last one seen; PID 0: none yet
	known   Known
}

// NewApplier prepares for the back end of that name. Its slots are the servers
// named prefix and a number; see Numbered for an empty one.
func NewApplier(c *runtime.Client, backend, prefix string) *Applier {
	return &Applier{client: c, backend: backend, prefix: prefix, known: Known{Done: map[int]slots.Slot{}}}
}

// Report is what one Apply found and did.
type Report struct {
	Process runtime.Info
	// Restarted tells that another process than the last time answers: HAProxy
	// was reloaded or restarted. What it lacks has just been put right.
	Restarted bool
	// Servers as they were in the end, by slot.
	Servers map[int]runtime.Server
	// Passing are the servers of the share whose checks pass.
	Passing []slots.Passing
	// Held are the slots that their server's own agent keeps back; see
	// Difference.
	Held map[int]string
	// Steps are those that were carried out, wholly or in part.
	Steps []Step
	// Sent and Failed count commands; Repaired, the steps of slots for which
	// nothing new was wanted: somebody else had changed them.
	Sent, Failed, Repaired int
	// Problems are slots that are not as wanted in the end, each a sentence;
	// the next Apply tries again.
	Problems []string
	Took     time.Duration
}

// Apply makes the back end's servers what is wanted, and reads back what has
// become of it. Where nothing differs it sends no command. An error is that
// HAProxy could not be asked, or has no such slots; what is wrong with single
// slots is in the report, and keeps none of the others back.
func (a *Applier) Apply(ctx context.Context, wanted []slots.Slot) (Report, error) {
	began := time.Now()
	r := Report{}
	fail := func(err error) (Report, error) {
		r.Took = time.Since(began)
		return r, fmt.Errorf("applying to back end %s: %w", a.backend, err)
	}
	info, err := a.client.ShowInfo(ctx)
	if err != nil {
		return fail(err)
	}
	r.Process = info
	if info.PID != a.process.PID || info.Uptime < a.process.Uptime {
		r.Restarted = a.process.PID != 0
		a.known = Known{Done: map[int]slots.Slot{}}
	}
	a.process = info

	if r.Servers, err = a.list(ctx); err != nil {
		return fail(err)
	}
	d := Diff(a.backend, r.Servers, wanted, a.known)
	if len(d.Steps) > 0 {
		r.Steps = d.Steps
		want := map[int]slots.Slot{}
		for _, w := range wanted {
			want[w.Number] = w
		}
		for _, s := range d.Steps {
			if done, ok := a.known.Done[s.Slot]; ok && same(done, want[s.Slot]) {
				r.Repaired++
			}
		}
		refused := a.send(ctx, d.Steps, &r)
		if r.Servers, err = a.list(ctx); err != nil {
			return fail(err)
		}
		before := d.Steps
		d = Diff(a.backend, r.Servers, wanted, a.known)
		d.Problems = append(d.Problems, refused...)
		d.Problems = append(d.Problems, unchanged(before, d.Steps, refused)...)
	}
	a.remember(wanted, r.Servers, d)
	r.Held, r.Problems = d.Held, d.Problems
	r.Passing = Passing(r.Servers, wanted)
	r.Took = time.Since(began)
	return r, nil
}

func (a *Applier) list(ctx context.Context) (map[int]runtime.Server, error) {
	servers, err := a.client.ShowServersState(ctx, a.backend)
	if err != nil {
		return nil, err
	}
	return Numbered(servers, a.prefix)
}

// same tells whether the two ask the same of HAProxy.
func same(a, b slots.Slot) bool {
	if a.State == slots.Free || b.State == slots.Free || b.State == "" {
		return a.State == slots.Free && (b.State == slots.Free || b.State == "")
	}
	return a.State == b.State && a.Addr == b.Addr && a.Weight == b.Weight
}

// send carries the steps out side by side: the first command of each, then the
// second of those whose first was not refused, and so on. It returns the
// refusals, each a sentence.
func (a *Applier) send(ctx context.Context, steps []Step, r *Report) []string {
	var refused []string
	alive := steps
	for turn := 0; len(alive) > 0; turn++ {
		var next []Step
		var commands []runtime.Command
		for _, s := range alive {
			if turn < len(s.Commands) {
				next = append(next, s)
				commands = append(commands, s.Commands[turn])
			}
		}
		errs := a.client.Do(ctx, commands...)
		r.Sent += len(commands)
		alive = nil
		for i, err := range errs {
			switch {
			case err == nil:
				alive = append(alive, next[i])
			case errors.Is(err, runtime.ErrStaticWeight):
				// That is the back end's nature; the rest can be had.
				r.Failed++
				a.known.FixedWeights = true // which Diff tells of
				alive = append(alive, next[i])
			default:
				r.Failed++
				refused = append(refused, fmt.Sprintf("slot %d: %v", next[i].Slot, err))
			}
		}
	}
	return refused
}

// unchanged tells of slots for which everything was sent, nothing refused, and
// which are not as wanted all the same.
func unchanged(sent, left []Step, refused []string) []string {
	if len(refused) > 0 {
		return nil // those explain it
	}
	tried := map[int]bool{}
	for _, s := range sent {
		tried[s.Slot] = true
	}
	var problems []string
	for _, s := range left {
		if tried[s.Slot] {
			problems = append(problems, fmt.Sprintf("slot %d: HAProxy took %d commands and the listing still shows %s", s.Slot, len(s.Commands), s.Reason))
		}
	}
	return problems
}

// remember notes the slots that are as wanted, or that their agents hold.
func (a *Applier) remember(wanted []slots.Slot, servers map[int]runtime.Server, left Difference) {
	open := map[int]bool{}
	for _, s := range left.Steps {
		open[s.Slot] = true
	}
	done := map[int]slots.Slot{}
	for _, w := range wanted {
		if _, ok := servers[w.Number]; ok && !open[w.Number] {
			done[w.Number] = w
		}
	}
	a.known.Done = done
}
