package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/control"
	"lb4d/health"
)

// TestRequestsThroughTheLoop: many ask at once, the loop carries one out after
// the other, and each answer tells of a pass that has been made.
func TestRequestsThroughTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := parse(t, named)
		w, d := newWorld(t, cfg)
		w.are(cfg, health.Up)
		ctx, stop := context.WithCancel(t.Context())
		var loop, asking sync.WaitGroup
		loop.Go(func() {
			if err := d.loop(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // the first pass
		for i := range 4 * maxRequests {
			asking.Go(func() {
				member := fmt.Sprintf("lb7-%d", 1+i%2)
				a, err := d.Drain(t.Context(), control.DrainRequest{Member: member, Force: true})
				if err != nil || len(a.Members) != 1 || a.Members[0].State != "draining" || a.Members[0].Weight != 0 {
					t.Errorf("draining %s: answer %+v, %v; want it drained and at weight 0", member, a, err)
				}
			})
		}
		asking.Wait()
		a, err := d.Undrain(t.Context(), control.DrainRequest{Member: "lb7/lb7-2"})
		if err != nil || !a.Changed || a.Members[0].Weight != 1 {
			t.Errorf("undraining: answer %+v, %v", a, err)
		}
		if _, err := d.Undrain(t.Context(), control.DrainRequest{Member: "lb7-3"}); err == nil {
			t.Error("undraining an unknown member: no error")
		}
		stop()
		loop.Wait()
		if len(d.memory.drains) != 1 {
			t.Errorf("drained at the end: %v, want lb7-1 alone", d.memory.drained())
		}
		_, err = d.Drain(t.Context(), control.DrainRequest{Member: "lb7-2"})
		if want := "lb4d has stopped: nothing was changed"; err == nil || err.Error() != want {
			t.Errorf("after the loop's end: got %v, want %s", err, want)
		}
	})
}

// TestRequestGivenUp: what the loop does not get to in time is not done later
// behind the back of the one who asked.
func TestRequestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if _, err := d.Drain(ctx, control.DrainRequest{Member: "lb7-1"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a loop that hangs: got %v, want that the time was over", err)
		}
		if answer := d.take(<-d.requests); answer != nil || len(d.memory.drains) > 0 {
			t.Errorf("the loop went on to drain %v", d.memory.drained())
		}
		for range maxRequests {
			d.requests <- request{ctx: ctx}
		}
		ctx, cancel = context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		_, err := d.Undrain(ctx, control.DrainRequest{Member: "lb7-1"})
		if want := "lb4d is busy with other requests: nothing was changed; try again"; err == nil || err.Error() != want {
			t.Errorf("behind %d requests: got %v, want %s", maxRequests, err, want)
		}
		expect(t, "done", w.since(), "")
	})
}

// TestRequestAndStop: a request that is in the loop when it ends has its
// answer, and one behind it hears that nothing was done.
func TestRequestAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := announcing(t, named)
		var asking sync.WaitGroup
		asking.Go(func() {
			_, err := d.Drain(t.Context(), control.DrainRequest{Member: "lb7-1"})
			if err == nil || !strings.Contains(err.Error(), "lb4d has stopped") {
				t.Errorf("got %v, want that it has stopped", err)
			}
		})
		synctest.Wait()
		close(d.ended)
		asking.Wait()
	})
}

// TestDrainOverTheSocket is the whole way: lbctl's client, the socket, the
// loop, and back.
func TestDrainOverTheSocket(t *testing.T) {
	cfg := parse(t, named)
	w, d := newWorld(t, cfg)
	w.are(cfg, health.Up)
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	server, err := control.Listen(control.Options{Socket: path, Drain: d.Drain, Undrain: d.Undrain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d.show = server.Publish
	ctx, stop := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { d.loop(ctx) })
	defer loop.Wait()
	defer stop()

	c := control.NewClient(path)
	var a *control.DrainAnswer
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if a, err = c.Drain(ctx, control.DrainRequest{Member: "lb7-1", Reason: "new disk"}); err == nil || time.Now().After(deadline) {
			break
		}
		if !strings.Contains(err.Error(), "lb4d is starting") {
			t.Fatal(err)
		}
	}
	if err != nil || !a.Changed || a.Members[0].State != "draining" {
		t.Fatalf("answer %+v, %v", a, err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Members[0].Drained == nil || st.Members[0].Drained.Reason != "new disk" {
		t.Errorf("status right after: %+v, %v; want the drain", st, err)
	}
	if _, err := c.Drain(ctx, control.DrainRequest{Member: "lb7-2"}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("the last member: got %v, want that it needs --force", err)
	}
	if a, err := c.Undrain(ctx, control.DrainRequest{Member: "lb7-1"}); err != nil || !a.Changed {
		t.Errorf("undrain: answer %+v, %v", a, err)
	}
}
