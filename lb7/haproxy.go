package lb7

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"lb4d/config"
	"lb4d/control"
	"lb4d/l7/runtime"
)

const (
	// lookEvery is how often HAProxy is asked who it is, so that a reload or a
	// restart is put right within a second.
	lookEvery = 250 * time.Millisecond
	// readEvery is how often HAProxy is also asked for its sessions and for the
	// state map, which costs it more.
	readEvery = time.Second
	// stateKey is the one key of the state map.
	stateKey = "host"
)

// haproxyPart watches the HAProxy process, and keeps the state map.
type haproxyPart struct {
	log       *slog.Logger
	ctx       context.Context
	changed   func() // there is something new to tell
	restarted func() // another process answers
	agent     *agentPart

	mu     sync.Mutex // guards what follows
	cfg    *config.HAProxy
	client *runtime.Client
	stop   func()
	look   sight
}

// sight is what was last seen.
type sight struct {
	at       time.Time // zero: nothing yet
	info     runtime.Info
	since    time.Time // of the process
	sessions int
	err      error
	restarts uint64
	mapErr   error
	read     time.Time // of the last look at sessions and map
	word     string    // the agent check's, then
}

// prepare implements part.
func (p *haproxyPart) prepare(_ context.Context, cfg *config.LB7) (change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reflect.DeepEqual(cfg.HAProxy, p.cfg) {
		return change{}, nil
	}
	var client *runtime.Client
	if cfg.HAProxy != nil {
		var err error
		if client, err = runtime.New(cfg.HAProxy.Socket, runtime.Options{Process: cfg.HAProxy.Process, Timeout: cfg.HAProxy.Timeout}); err != nil {
			return change{}, err
		}
	}
	return change{commit: func() {
		p.close()
		if client != nil {
			p.start(cfg.HAProxy, client)
		}
	}}, nil
}

func (p *haproxyPart) start(cfg *config.HAProxy, client *runtime.Client) {
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg, p.client, p.look = cfg, client, sight{}
	p.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		p.watch(ctx, cfg, client)
	}()
}

// watch looks until ctx ends.
func (p *haproxyPart) watch(ctx context.Context, cfg *config.HAProxy, client *runtime.Client) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last sight
	for {
		now := p.see(ctx, cfg, client, last)
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.look = now
		p.mu.Unlock()
		if now.restarts != last.restarts || now.err == nil && last.err != nil {
			p.restarted()
		}
		p.tell(last, now)
		last = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// see asks HAProxy who it is, and puts the state map right.
func (p *haproxyPart) see(ctx context.Context, cfg *config.HAProxy, client *runtime.Client, last sight) sight {
	now := last
	now.at = time.Now()
	info, err := client.ShowInfo(ctx)
	if now.err = err; err == nil {
		if last.info.PID != 0 && (info.PID != last.info.PID || info.Uptime < last.info.Uptime) {
			now.restarts++
		}
		if now.restarts != last.restarts || last.info.PID == 0 {
			now.since = now.at.Add(-info.Uptime)
		}
		now.info = info
	}
	s, _ := p.agent.status()
	now.word = word(s.Answer)
	same := now.word == last.word && now.restarts == last.restarts && (now.err == nil) == (last.err == nil) && now.mapErr == nil
	if same && now.at.Sub(last.read) < readEvery {
		return now
	}
	now.read = now.at
	if now.err == nil {
		now.sessions, now.err = sessionsOf(ctx, client)
	}
	now.mapErr = p.keepState(ctx, cfg.StateMap, client, now.err == nil)
	return now
}

// tell logs what is different.
func (p *haproxyPart) tell(last, now sight) {
	switch {
	case last.at.IsZero() && now.err == nil:
		p.log.Info("HAProxy answers", "pid", now.info.PID, "version", now.info.Version)
	case now.err != nil && (last.err == nil || last.at.IsZero()):
		p.log.Warn("HAProxy does not answer", "err", now.err)
	case now.restarts != last.restarts:
		p.log.Info("HAProxy is another process: all is applied again", "pid", now.info.PID, "was", last.info.PID)
	case now.err == nil && last.err != nil:
		p.log.Info("HAProxy answers again", "pid", now.info.PID)
	}
	switch {
	case now.mapErr != nil && (last.mapErr == nil || last.mapErr.Error() != now.mapErr.Error()):
		p.log.Warn("state map is not as it should be", "err", now.mapErr)
	case now.mapErr == nil && last.mapErr != nil:
		p.log.Info("state map is right again")
	}
	if (last.err == nil) != (now.err == nil) || last.restarts != now.restarts || last.at.IsZero() {
		p.changed()
	}
}

// sessionsOf counts the sessions that go on at the front ends.
func sessionsOf(ctx context.Context, client *runtime.Client) (int, error) {
	fronts, err := client.ShowFrontends(ctx)
	n := 0
	for _, f := range fronts {
		n += f.Sessions
	}
	return n, err
}

// keepState makes the entry of the state map what the agent check says: in the
// file first, where HAProxy's next start finds it, then in HAProxy.
func (p *haproxyPart) keepState(ctx context.Context, file string, client *runtime.Client, running bool) error {
	if file == "" {
		return nil
	}
	s, on := p.agent.status()
	if !on {
		return nil
	}
	want := word(s.Answer)
	text := stateKey + " " + want + "\n"
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the state map: %w", err)
	}
	if string(old) != text {
		if err := renameio.WriteFile(file, []byte(text), 0o644, renameio.WithStaticPermissions(0o644)); err != nil {
			return fmt.Errorf("writing the state map %s: %w", file, err)
		}
	}
	if !running {
		return nil
	}
	entries := map[string]string{}
	err = client.ShowMap(ctx, file, func(key, value string) error {
		entries[key] = value
		return nil
	})
	if errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("HAProxy's configuration refers to no map %s: write monitor fail if !{ str(host),map(%[1]s,up) -m str up } into the front end that is checked", file)
	}
	if err != nil {
		return err
	}
	if len(entries) == 1 && entries[stateKey] == want {
		return nil
	}
	if err := client.ReplaceMap(ctx, file, maps.All(map[string]string{stateKey: want})); err != nil {
		return err
	}
	p.log.Info("state map set", "host", want)
	return nil
}

// sessions asks HAProxy how many sessions it has.
func (p *haproxyPart) sessions(ctx context.Context) (int, error) {
	p.mu.Lock()
	client := p.client
	p.mu.Unlock()
	if client == nil {
		return 0, errors.New("lb7d.toml has no [haproxy], so there is nobody to ask")
	}
	return sessionsOf(ctx, client)
}

// report implements part.
func (p *haproxyPart) report(st *control.LB7Status) (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		return true, time.Now()
	}
	l := p.look
	h := &control.HAProxy{
		Socket: p.client.Address(), Running: !l.at.IsZero() && l.err == nil, Error: oneLine(l.err),
		PID: l.info.PID, Version: l.info.Version, Since: l.since, Sessions: l.sessions, Restarts: l.restarts,
	}
	st.HAProxy = h
	for _, err := range []error{l.err, l.mapErr} {
		if err != nil {
			st.Errors = append(st.Errors, oneLine(err))
		}
	}
	if l.at.IsZero() {
		return false, time.Now()
	}
	return true, l.at
}

func (p *haproxyPart) close() {
	p.mu.Lock()
	stop := p.stop
	p.stop, p.client, p.cfg = nil, nil, nil
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
}
