package l7

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// Step is what one slot needs: commands that depend on one another, so that
// after a refused one the rest must not be sent.
type Step struct {
	Slot     int
	Server   string // as HAProxy names it
	Reason   string // what is there: "drain instead of ready"
	Commands []runtime.Command
}

// Known is what HAProxy's listing does not tell.
type Known struct {
	// Done are the slots as they were carried out in this HAProxy process.
	Done map[int]slots.Slot
	// FixedWeights tells that the back end balances by a fixed table, which
	// takes no weights.
	FixedWeights bool
}

// Difference is what a listing and a share come to.
type Difference struct {
	Steps []Step
	// Held are the slots whose server's own agent keeps them from what is
	// wanted, with what it does: "drain", "maint", "weight 5".
	Held map[int]string
	// Problems are slots that cannot be as wanted, each a sentence.
	Problems []string
}

// Diff finds what to send so that the servers become what is wanted; nothing
// where they are. Slots that HAProxy has and the share lacks become free.
//
// A server comes in behind its first passing check: it leaves maintenance
// drained, its health is set down while nothing can reach it, and only then it
// is made ready, so that HAProxy waits for its checks to rise. A server that
// leaves maintenance straight for ready would count as healthy until its first
// check fails.
//
// Where an agent check runs, the agent says whether a ready server drains, is
// in maintenance or weighs less, and is left to it; otherwise the two would
// undo each other's work. A slot that is free or excluded has its agent
// stopped, because an agent that says "ready" would bring back a server that
// is not in the list any more.
func Diff(backend string, servers map[int]runtime.Server, wanted []slots.Slot, known Known) Difference {
	d := Difference{Held: map[int]string{}}
	want, fixed := map[int]slots.Slot{}, false
	for _, w := range wanted {
		want[w.Number] = w
		if _, ok := servers[w.Number]; !ok && w.State != slots.Free {
			d.Problems = append(d.Problems, fmt.Sprintf("slot %d: back end %s has no such server, so %s at %s gets no traffic", w.Number, backend, w.ID, w.Addr))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(servers)) {
		w, ok := want[n]
		if !ok {
			w = slots.Slot{Number: n, State: slots.Free}
		}
		c := &composer{backend: backend, server: servers[n], want: w, known: known}
		c.compose()
		if c.held != "" {
			d.Held[n] = c.held
		}
		fixed = fixed || c.fixed
		switch {
		case c.err != nil:
			d.Problems = append(d.Problems, fmt.Sprintf("slot %d: %v", n, c.err))
		case len(c.commands) > 0:
			d.Steps = append(d.Steps, Step{n, c.server.Name, c.reason, c.commands})
		}
	}
	if fixed {
		d.Problems = append(d.Problems, fmt.Sprintf("back end %s balances by a fixed table, so weights and ramps do nothing; hash-type consistent takes them", backend))
	}
	return d
}

// composer puts one slot's commands together.
type composer struct {
	backend string
	server  runtime.Server
	want    slots.Slot
	known   Known

	commands     []runtime.Command
	reason, held string
	fixed        bool // a weight differs that cannot be set
	err          error
}

func (c *composer) send(cmd runtime.Command, err error) {
	c.commands, c.err = append(c.commands, cmd), errors.Join(c.err, err)
}

func (c *composer) state(s runtime.State) {
	c.send(runtime.SetServerState(c.backend, c.server.Name, s))
}

// why keeps the first reason, which is what the others follow from.
func (c *composer) why(format string, args ...any) {
	if c.reason == "" {
		c.reason = fmt.Sprintf(format, args...)
	}
}

// agent starts or stops the agent check where there is one.
func (c *composer) agent(on bool) {
	if c.server.HasAgent && c.server.Agent != on {
		c.why("agent check %s", map[bool]string{true: "stopped", false: "running"}[on])
		c.send(runtime.EnableAgent(c.backend, c.server.Name, on))
	}
}

func (c *composer) compose() {
	switch {
	case c.want.State == slots.Free:
		if c.server.State != runtime.Maint {
			c.why("%s in a free slot", c.server.State)
			c.state(runtime.Maint)
		}
		c.agent(false)
	case c.server.Addr != c.want.Addr:
		c.why("address %s instead of %s", c.server.Addr, c.want.Addr)
		if c.server.State != runtime.Maint {
			// Nothing goes to the new address before its check has passed, and
			// no check of the old one counts for it.
			c.state(runtime.Maint)
		}
		c.send(runtime.SetServerAddr(c.backend, c.server.Name, c.want.Addr))
		c.enter()
	case c.want.State == slots.Drain:
		switch c.server.State {
		case runtime.Ready:
			c.why("ready instead of drain")
			c.state(runtime.Drain)
			c.weight()
		case runtime.Maint:
			c.why("maint instead of drain")
			c.enter()
		default:
			c.weight()
		}
		c.agent(false)
	default:
		c.ready()
	}
}

// ready composes a slot whose server should take traffic and has the right
// address.
func (c *composer) ready() {
	s := c.server
	_, done := c.known.Done[c.want.Number]
	switch {
	case s.State == runtime.Ready:
		c.weight()
	case s.Agent && (done || s.Checked):
		// It was let in before, in this process, and so it is the agent that
		// holds it now. A server that starts disabled, by the include file,
		// has not been checked yet.
		c.held = string(s.State)
	case s.State == runtime.Maint:
		c.why("maint instead of ready")
		c.enter()
	default:
		c.why("drain instead of ready")
		c.weight()
		if c.want.PassedAt.IsZero() {
			c.down()
		}
		c.state(runtime.Ready)
	}
	c.agent(true)
}

// enter takes a server out of maintenance, to wait for its checks. Only where
// HAProxy has lost what it had, since it started again, a server that has
// passed before comes in at once, as it would from a configuration file: all
// of them wait for nothing else, and until then there is none to serve.
func (c *composer) enter() {
	_, done := c.known.Done[c.want.Number]
	unproven := done || c.want.PassedAt.IsZero()
	c.weight()
	if c.server.Agent && c.want.State == slots.Drain {
		c.agent(false)
		c.server.Agent = false
	}
	c.state(runtime.Drain)
	if unproven {
		c.down()
	}
	if c.want.State == slots.Ready {
		c.state(runtime.Ready)
		c.agent(true)
		c.server.Agent = c.server.HasAgent
	}
}

// down withdraws the health that a server has without having earned it. One
// without a check would stay down for good.
func (c *composer) down() {
	if c.server.HasCheck {
		c.send(runtime.SetServerHealth(c.backend, c.server.Name, false))
	}
}

// weight sets the weight where it differs, unless the agent has changed it.
func (c *composer) weight() {
	if c.server.Weight == c.want.Weight {
		return
	}
	if c.fixed = c.known.FixedWeights; c.fixed {
		return
	}
	done, ok := c.known.Done[c.want.Number]
	if ok && c.server.Agent && c.server.State != runtime.Maint && c.want.State == slots.Ready && done.Weight == c.want.Weight && done.Addr == c.want.Addr {
		c.held = fmt.Sprintf("weight %d", c.server.Weight)
		return
	}
	c.why("weight %d instead of %d", c.server.Weight, c.want.Weight)
	c.send(runtime.SetServerWeight(c.backend, c.server.Name, c.want.Weight))
}
