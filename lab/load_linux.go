package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lb4d/lab/load"
)

// drawEvery is how often the graph of a load is drawn anew.
const drawEvery = 500 * time.Millisecond

// load serves the request to put load on the lab.
func (l *Lab) load(ctx context.Context, ses *session) (int, error) {
	req := ses.Load
	if req == nil {
		return 2, errors.New("what load to make is not said")
	}
	o := load.Options{Duration: req.For}
	var err error
	if o.Targets, err = l.Targets(req.VIPs...); err != nil {
		return 2, err
	}
	if req.Rate > 0 {
		o.Kinds = append(o.Kinds, load.Quick(req.Rate))
	}
	if req.Slow > 0 {
		o.Kinds = append(o.Kinds, load.Slow(req.Slow, req.SlowFor))
	}
	width := 0
	if ses.Terminal != nil {
		width = ses.Terminal.Columns
	}
	graph := load.NewGraph(ses.out, width)
	every := drawEvery
	if width == 0 {
		every = 5 * time.Second // One line each: a log, no picture.
	}
	// The users' process must live on to tell how it went, when ctx ends.
	t, err := l.startLoad(context.WithoutCancel(ctx), order{Options: o, Window: graph.Window()})
	if err != nil {
		return 1, err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			if ses.JSON {
				continue
			}
			if err := graph.Show(t.Snapshot()); err != nil {
				t.kill()
				return 1, fmt.Errorf("drawing the load: %w", err)
			}
		case <-ctx.Done():
			running = false
		case <-t.Done():
			running = false
		}
	}
	r, err := t.Stop()
	if err != nil {
		return 1, err
	}
	if ses.JSON {
		return 0, json.NewEncoder(ses.out).Encode(r)
	}
	return 0, graph.Show(r)
}
