package lb7

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"lb4d/control"
)

// gather asks every part and publishes what they tell.
func (d *Daemon) gather() {
	now := time.Now()
	st := &control.LB7Status{
		Program: "lb7d", Version: d.opts.Version, PID: os.Getpid(),
		Started: d.started, Updated: now,
		State: "running", Config: d.cfgFile, Counters: d.counters,
	}
	st.Host, _ = os.Hostname()
	ready, oldest := true, now
	for _, p := range d.parts {
		r, seen := p.report(st)
		ready = ready && r
		if seen.Before(oldest) {
			oldest = seen
		}
	}
	d.seen = oldest
	// What hangs shows as an old status, as it would if this loop hung.
	if now.Sub(oldest) > control.StaleAfter {
		st.Updated = oldest
	}
	switch {
	case d.stopping:
		st.State = "stopping"
	case d.readyDue && !ready && d.counters == (control.LB7Counters{}):
		st.State = "starting"
	}
	st.Summary = summary(st)
	d.control.PublishLB7(st)
	if ready && d.readyDue && !d.stopping {
		d.readyDue = false
		d.opts.Notify("READY=1")
	}
	if st.Summary != d.told {
		d.told = st.Summary
		d.opts.Notify("STATUS=" + st.Summary)
	}
}

// summary is the state of lb7d in one sentence.
func summary(st *control.LB7Status) string {
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if t := st.Tunnel; t != nil {
		say("%s out of %s", plural(len(t.VIPs), "VIP"), plural(len(t.Devices), "tunnel"))
	}
	if a := st.AgentCheck; a != nil {
		if a.Serving {
			say("agent check says %s", a.Answer)
		} else {
			say("drained: agent check says %s", a.Answer)
		}
	}
	if h := st.HAProxy; h != nil && !h.Running {
		say("HAProxy does not answer")
	}
	if n := len(st.Backends); n > 0 {
		servers, running := 0, 0
		for _, b := range st.Backends {
			servers += len(b.Servers)
			for _, s := range b.Servers {
				if s.Running && s.State == "ready" {
					running++
				}
			}
		}
		say("%d of %d servers of %s take requests", running, servers, plural(n, "back end"))
	}
	for _, d := range st.Directories {
		say("directory %s: %s", d.Name, d.State)
	}
	if n := len(st.Errors); n > 0 {
		say("%s", plural(n, "fault"))
	}
	s := strings.Join(parts, "; ")
	if s == "" {
		s = "nothing to do: no part is in the configuration"
	}
	if st.State != "running" {
		s = st.State + ": " + s
	}
	return s
}

// plural is a number with what it counts.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// few names the first of many.
func few(all []string) string {
	const most = 5
	all = slices.Sorted(slices.Values(all))
	if len(all) <= most {
		return strings.Join(all, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], " "), len(all)-most)
}
