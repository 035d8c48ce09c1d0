package lab

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ProcessStatus is how something that runs on a host is.
type ProcessStatus struct {
	Host string `json:"host"`
	Name string `json:"name"`
	// PID is 0 where it is not running, and for the servers that the lab
	// itself runs.
	PID     int       `json:"pid,omitempty"`
	Running bool      `json:"running"`
	Started time.Time `json:"started,omitzero"`
	// Outcome is how it ended, where it did.
	Outcome string `json:"outcome,omitempty"`
}

// Processes lists all that runs, or should, on the hosts, in their order.
func (l *Lab) Processes() []ProcessStatus {
	var all []ProcessStatus
	for _, h := range l.Topology.Hosts {
		for _, p := range l.programs[h.Name] {
			pid, started, outcome := p.state()
			all = append(all, ProcessStatus{
				Host: h.Name, Name: p.name, PID: pid, Running: pid != 0, Started: started, Outcome: outcome,
			})
		}
		for _, s := range l.servers[h.Name] {
			started, running := s.state()
			st := ProcessStatus{Host: h.Name, Name: string(s.spec.Kind), Running: running, Started: started}
			if !running {
				st.Outcome = "stopped"
			}
			all = append(all, st)
		}
	}
	return all
}

// find returns what runs on a host by that name; one of the two is not nil.
func (l *Lab) find(host, process string) (*program, *served, error) {
	if _, err := l.place(host); err != nil {
		return nil, nil, err
	}
	var names []string
	for _, p := range l.programs[host] {
		if p.name == process {
			return p, nil, nil
		}
		names = append(names, p.name)
	}
	for _, s := range l.servers[host] {
		if string(s.spec.Kind) == process {
			return nil, s, nil
		}
		names = append(names, string(s.spec.Kind))
	}
	return nil, nil, fmt.Errorf("nothing named %q runs on %s; there is: %s", process, host, strings.Join(names, ", "))
}

// Start starts a process of a host, unless it is running.
func (l *Lab) Start(host, process string) error {
	p, s, err := l.find(host, process)
	switch {
	case err != nil:
		return err
	case p != nil:
		return p.start()
	}
	return s.start()
}

// Stop ends a process of a host (TERM, after 5 s KILL) and waits for its end.
func (l *Lab) Stop(host, process string) error {
	p, s, err := l.find(host, process)
	switch {
	case err != nil:
		return err
	case p != nil:
		p.stop()
	default:
		s.stop()
	}
	return nil
}

// Restart is Stop, then Start.
func (l *Lab) Restart(host, process string) error {
	if err := l.Stop(host, process); err != nil {
		return err
	}
	return l.Start(host, process)
}

// Kill sends a signal to a process of a host and does not wait. The servers
// that the lab itself runs can only be stopped.
func (l *Lab) Kill(host, process string, sig syscall.Signal) error {
	p, _, err := l.find(host, process)
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("sending %v to %s on %s: the lab itself runs it; use stop", sig, process, host)
	}
	if err := p.signal(sig); err != nil {
		return fmt.Errorf("sending %v to %s on %s: %w", sig, process, host, err)
	}
	return nil
}

// Host tells what a host is.
func (l *Lab) Host(name string) (*Host, error) {
	h, ok := l.Topology.Host(name)
	if !ok {
		return nil, fmt.Errorf("no host is named %q; lab status lists them", name)
	}
	return h, nil
}

// Path is where a file below one of a host's own directories is, seen from
// outside the host.
func (l *Lab) Path(host, path string) string { return filepath.Join(l.hostDir(host), path) }

// Routes reads a router's routes to the service addresses from its kernel.
func (l *Lab) Routes(router string) (Routes, error) {
	h, err := l.Host(router)
	if err != nil {
		return nil, err
	}
	if h.Role != RoleRouter {
		return nil, fmt.Errorf("reading the routes of %s: it is no router", router)
	}
	return listRoutes(l.wiring.places[router].rtnl, l.Topology.vipSet())
}
