package daemon

import (
	"context"
	"net/http"

	"lb4d/control"
)

// maxRequests bounds how many requests wait for the loop; further ones wait
// with those who ask.
const maxRequests = 16

// request is what an operator asks of the loop. The loop alone touches the
// daemon's state, so a request goes there and its answer comes back.
type request struct {
	// ctx ends when the one who asked waits no longer; what has not begun by
	// then is not begun.
	ctx context.Context
	// do carries it out as far as it can be without a pass. What it returns
	// makes the answer, after a pass.
	do    func() (answer func() any, err error)
	reply chan<- reply // with room for one, so that the loop never waits
}

type reply struct {
	answer any
	err    error
}

// Drain drains a member on this host, and returns when a pass has carried it
// out. It may be called from any goroutine.
func (d *Daemon) Drain(ctx context.Context, r control.DrainRequest) (*control.DrainAnswer, error) {
	return ask(ctx, d, func() (func() *control.DrainAnswer, error) { return d.changed(d.drain(r)) })
}

// Undrain ends a member's drain, as Drain begins it.
func (d *Daemon) Undrain(ctx context.Context, r control.DrainRequest) (*control.DrainAnswer, error) {
	return ask(ctx, d, func() (func() *control.DrainAnswer, error) { return d.changed(d.undrain(r)) })
}

// changed is the answer to a drain or an undrain, once there was a pass.
func (d *Daemon) changed(c change, err error) (func() *control.DrainAnswer, error) {
	return func() *control.DrainAnswer { return d.answer(c) }, err
}

// ask has the loop do something and waits for its answer, for no longer than
// ctx or the loop lasts.
func ask[A any](ctx context.Context, d *Daemon, do func() (func() *A, error)) (*A, error) {
	replies := make(chan reply, 1)
	wanted := request{ctx: ctx, reply: replies, do: func() (func() any, error) {
		answer, err := do()
		return func() any { return answer() }, err
	}}
	told := func(r reply) (*A, error) {
		a, _ := r.answer.(*A) // nil with an error
		return a, r.err
	}
	select {
	case d.requests <- wanted:
	case <-d.ended:
		return nil, refuse(http.StatusServiceUnavailable, "lb4d has stopped: nothing was changed")
	case <-ctx.Done():
		return nil, refuse(http.StatusServiceUnavailable, "lb4d is busy with other requests: nothing was changed; try again")
	}
	select {
	case got := <-replies:
		return told(got)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.ended:
	}
	select {
	case got := <-replies: // the last thing that the loop did
		return told(got)
	default:
		return nil, refuse(http.StatusServiceUnavailable, "lb4d has stopped: nothing was changed")
	}
}

// take carries a request out as far as it can be without a pass. The function
// that it returns sends the answer, after a pass; nil: no pass is needed.
func (d *Daemon) take(r request) (answer func()) {
	if r.ctx.Err() != nil {
		return nil
	}
	made, err := r.do()
	if err != nil {
		r.reply <- reply{err: err}
		return nil
	}
	return func() { r.reply <- reply{answer: made()} }
}

// answer tells what a change has come to, as the last pass has left it.
func (d *Daemon) answer(c change) *control.DrainAnswer {
	a := &control.DrainAnswer{
		Host: d.shown.Host, Pool: c.name.Pool, Member: c.name.Member,
		Changed: c.changed, Was: showDrain(c.was), Drained: showDrain(c.now),
		InEffect: d.settled && d.unreadSince.IsZero(),
		Warnings: c.warnings, Errors: d.shown.Errors,
	}
	for _, m := range d.shown.Members {
		if m.Pool == a.Pool && m.Name == a.Member {
			a.Members = append(a.Members, m)
			a.InEffect = a.InEffect && (c.now == nil || m.Weight == 0)
		}
	}
	return a
}
