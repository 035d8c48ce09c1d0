package lab

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// TestTrials plays a part of the comparison's events with fewer flows, for
// lb4d alone. What a busy machine adds to times is allowed for here; make
// compare measures them.
func TestTrials(t *testing.T) {
	needMachine(t, "haproxy", "bird", "gobgpd")
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Up(t.Context(), Options{Bin: bin, Progress: progress{t}, Pool: TrialPool(DefaultSizes)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	const seed = 11
	b := l.newBout(progress{t}, 40, seed)
	b.noise, b.stall = 3*time.Second, 4*time.Second
	for i, a := range b.acts() {
		if want := TrialNames()[i]; a.trial.Name != want {
			t.Fatalf("event %d is %q, want %q", i, a.trial.Name, want)
		}
		switch a.trial.Name {
		case drainedName, restartedName, upgradedName:
			continue // TestDaemon and the comparison have them.
		case historyName:
			a.play = func(ctx context.Context, t *Trial) (mercy, error) { return b.history(ctx, t, 6) }
		}
		t.Run(a.trial.Name, func(t *testing.T) {
			if err := b.try(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			trial := b.trials.Events[len(b.trials.Events)-1]
			for _, f := range trial.Failures {
				t.Error(f)
			}
			for _, f := range trial.Examples {
				t.Errorf("broken: %+v", f)
			}
			t.Logf("%s broken of %d; %s; %v", trial.broken(), b.flows, trial.times(), trial.Notes)
		})
		if t.Failed() && a.trial.Name == addedName {
			return // The rest needs that host.
		}
	}
}
