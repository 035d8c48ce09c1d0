package lb7

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"lb4d/agent"
	"lb4d/control"
)

// drainWord is what lbctl drain has the agent check say: no new work, and what
// goes on stays.
const drainWord = "drain"

func refuse(status int, format string, args ...any) error {
	return &control.Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// agentFile is the agent check's file, or why there is none.
func (d *Daemon) agentFile() (string, error) {
	s, on := d.agent.status()
	if !on {
		return "", refuse(http.StatusConflict, "this host cannot be drained: lb7d.toml has no [agent_check]")
	}
	return s.File, nil
}

// drain writes the agent check's file.
func (d *Daemon) drain(ctx context.Context, r control.HostDrainRequest) (*control.HostDrainAnswer, error) {
	file, err := d.agentFile()
	if err != nil {
		return nil, err
	}
	before, readErr := agent.Read(file)
	if err := agent.Write(file, drainWord, r.Reason); err != nil {
		return nil, refuse(http.StatusBadRequest, "%s", oneLine(err))
	}
	a, err := d.hostAnswer(ctx, file)
	if err != nil {
		return nil, err
	}
	a.Changed = readErr != nil || before.Serving()
	if a.Changed {
		d.log.Info("host drained by the operator", "reason", r.Reason, "sessions", a.Sessions)
	}
	return a, nil
}

// undrain removes the agent check's file, so that the default is answered.
func (d *Daemon) undrain(ctx context.Context, _ control.HostDrainRequest) (*control.HostDrainAnswer, error) {
	file, err := d.agentFile()
	if err != nil {
		return nil, err
	}
	before, readErr := agent.Read(file)
	if _, err := agent.Remove(file); err != nil {
		return nil, refuse(http.StatusInternalServerError, "%s", oneLine(err))
	}
	a, err := d.hostAnswer(ctx, file)
	if err != nil {
		return nil, err
	}
	a.Changed = !errors.Is(readErr, agent.ErrNoFile) && (readErr != nil || !before.Serving())
	if a.Changed {
		d.log.Info("host no longer drained", "was", before.String())
	}
	return a, nil
}

// sessions tells how many sessions are left.
func (d *Daemon) sessions(ctx context.Context, _ control.SessionsRequest) (*control.HostDrainAnswer, error) {
	file, err := d.agentFile()
	if err != nil {
		return nil, err
	}
	return d.hostAnswer(ctx, file)
}

// hostAnswer tells how this host is.
func (d *Daemon) hostAnswer(ctx context.Context, file string) (*control.HostDrainAnswer, error) {
	s, _ := d.agent.status()
	a := &control.HostDrainAnswer{File: file, Answer: s.Answer}
	a.Host, _ = os.Hostname()
	n, err := d.haproxy.sessions(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if a.Sessions = n; err != nil {
		a.Sessions, a.SessionsError = -1, oneLine(err)
	}
	d.poke()
	return a, nil
}

// confirm accepts the list that is held back for a back end.
func (d *Daemon) confirm(_ context.Context, r control.ConfirmRequest) (*control.ConfirmAnswer, error) {
	k, ok := d.backends.keeper(r.Backend)
	if !ok {
		return nil, refuse(http.StatusNotFound, "there is no [backend.%s] in lb7d.toml", r.Backend)
	}
	held, err := k.confirmHeld()
	if err != nil {
		return nil, refuse(http.StatusConflict, "%s", oneLine(err))
	}
	d.log.Info("held-back list confirmed by the operator", "record", k.name, "servers", held.Size, "missing", held.Missing)
	return &control.ConfirmAnswer{Record: k.name, HeldBack: held}, nil
}
