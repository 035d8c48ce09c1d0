package lb7

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"lb4d/agent"
	"lb4d/config"
	"lb4d/control"
)

// agentPart answers agent checks.
type agentPart struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	options agent.Options
	server  *agent.Server // nil: off
}

// prepare implements part.
func (p *agentPart) prepare(_ context.Context, cfg *config.LB7) (change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, server := p.options, p.server
	if cfg.AgentCheck == nil {
		return change{commit: func() { p.set(agent.Options{}, nil); closeAgent(server) }}, nil
	}
	o := agent.Options{File: cfg.AgentCheck.File, Listen: cfg.AgentCheck.Listen}
	if server == nil {
		opened, err := agent.New(o, p.log)
		if err != nil {
			return change{}, err
		}
		return change{commit: func() { p.set(o, opened) }, undo: func() { closeAgent(opened) }}, nil
	}
	if reflect.DeepEqual(o, old) {
		return change{}, nil
	}
	if err := server.Reload(o); err != nil {
		return change{}, err
	}
	return change{
		commit: func() { p.set(o, server) },
		undo: func() {
			if err := server.Reload(old); err != nil {
				p.log.Error("agent check not put back", "err", err)
			}
		},
	}, nil
}

func (p *agentPart) set(o agent.Options, s *agent.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.options, p.server = o, s
}

func closeAgent(s *agent.Server) {
	if s != nil {
		_ = s.Close()
	}
}

// status is what is answered now; false where the part is off.
func (p *agentPart) status() (agent.Status, bool) {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	if server == nil {
		return agent.Status{}, false
	}
	return server.Status(), true
}

// report implements part.
func (p *agentPart) report(st *control.LB7Status) (bool, time.Time) {
	now := time.Now()
	s, on := p.status()
	if !on {
		return true, now
	}
	a := &control.AgentCheck{
		File: s.File, Answer: s.Answer, Source: string(s.Source), Since: s.Since,
		Questions: s.Questions, Faults: s.Faults, Fault: oneLine(s.Fault),
		Serving: true,
	}
	if parsed, err := agent.Parse([]byte(s.Answer)); err == nil {
		a.Serving, a.Reason = parsed.Serving(), parsed.Reason
	}
	for _, l := range s.Listen {
		a.Listen = append(a.Listen, l.String())
	}
	st.AgentCheck = a
	if a.Fault != "" {
		st.Errors = append(st.Errors, a.Fault)
	}
	return true, now
}

// word is the first word of the answer that keeps work away, or up: the value
// of the state map.
func word(answer string) string {
	a, err := agent.Parse([]byte(answer))
	switch {
	case err != nil || a.Serving():
		return "up"
	case a.Admin != "" && a.Admin != "ready":
		return a.Admin
	}
	return strings.ToLower(a.Operational)
}

func (p *agentPart) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeAgent(p.server)
	p.server = nil
}
