package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// daemons are which daemons have a socket on this host.
type daemons struct{ lb4, lb7 bool }

func daemonsAt(lb4, lb7 string) daemons {
	there := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	return daemons{there(lb4), there(lb7)}
}

// hint tells a person who was shown the one status of the other one.
func (d daemons) hint() string {
	if d.lb4 && d.lb7 {
		return "lb7d is on this host too: lbctl status --lb7"
	}
	return ""
}

// drainHost drains the LB7 host itself, and waits for its sessions where told.
func drainHost(cmd *cobra.Command, client *control.Client, output format, reason string, timeout time.Duration) error {
	a, err := client.HostDrain(cmd.Context(), control.HostDrainRequest{Reason: reason})
	if err != nil {
		return ofLB4(err)
	}
	if timeout > 0 {
		if a, err = waitDrained(cmd.Context(), client, a, timeout, func(n int) {
			fmt.Fprintf(cmd.ErrOrStderr(), "lbctl: %s left\n", counted(n, "session"))
		}); err != nil {
			return err
		}
	}
	return show(cmd.OutOrStdout(), output, a, func(p *page) {
		p.say(bold, "", fmt.Sprintf("%s is drained: HAProxy is answered %q, %s", a.Host, a.Answer, sessionsLeft(a)))
	})
}

// sessionsLeft is how many sessions there are, in words.
func sessionsLeft(a *control.HostDrainAnswer) string {
	if a.Sessions < 0 {
		return "and how many sessions are left is not known: " + a.SessionsError
	}
	return counted(a.Sessions, "session") + " left"
}

// waitEvery is how often HAProxy is asked how many sessions are left.
const waitEvery = 500 * time.Millisecond

// waitDrained waits until HAProxy has no session left, and tells each change of
// their number.
func waitDrained(ctx context.Context, client *control.Client, a *control.HostDrainAnswer, timeout time.Duration, told func(int)) (*control.HostDrainAnswer, error) {
	end := time.Now().Add(timeout)
	changed, last := a.Changed, -1
	for {
		switch {
		case a.Sessions == 0:
			a.Changed = changed
			return a, nil
		case a.Sessions < 0:
			return a, fmt.Errorf("the drain stands, and HAProxy cannot be asked for its sessions: %s", a.SessionsError)
		case time.Now().After(end):
			return a, fmt.Errorf("the drain stands, but not all have ended: %s left after %s", counted(a.Sessions, "session"), timeout)
		}
		if a.Sessions != last {
			last = a.Sessions
			told(last)
		}
		select {
		case <-time.After(waitEvery):
		case <-ctx.Done():
			return a, ctx.Err()
		}
		var err error
		if a, err = client.Sessions(ctx); err != nil {
			return nil, err
		}
	}
}

// undrainHost ends the drain of the LB7 host itself.
func undrainHost(cmd *cobra.Command, client *control.Client, output format) error {
	a, err := client.HostUndrain(cmd.Context(), control.HostDrainRequest{})
	if err != nil {
		return ofLB4(err)
	}
	return show(cmd.OutOrStdout(), output, a, func(p *page) {
		was := "is no longer drained"
		if !a.Changed {
			was = "was not drained"
		}
		p.say(bold, "", fmt.Sprintf("%s %s: HAProxy is answered %q", a.Host, was, a.Answer))
	})
}

// ofLB4 explains that lb4d has members to drain and not itself, where it answers or
// is the one that runs here.
func ofLB4(err error) error {
	if strings.Contains(err.Error(), "404 Not Found") {
		return errors.New("it is lb4d that answers there, and it drains members: name one, as in lbctl drain lb7-1")
	}
	if _, stat := os.Stat(control.DefaultSocket); stat == nil && strings.Contains(err.Error(), "no lb7d answers") {
		return errors.New("this is an LB4 host: name the member, as in lbctl drain lb7-1; without one, an LB7 host is meant")
	}
	return err
}

// confirmCommand accepts a list that is held back.
func confirmCommand(client func() *control.Client) *cobra.Command {
	output := formatText
	cmd := &cobra.Command{
		Use:   "confirm BACKEND",
		Short: "Believe a list of servers that lb7d holds back",
		Long: `Have lb7d believe a list that it holds back because it shrank by more than
max_shrink, or became empty. The servers that it lacks lose their slots.`,
		Example:           `  lbctl confirm servers`,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := client().Confirm(cmd.Context(), control.ConfirmRequest{Backend: args[0]})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, a, func(p *page) {
				p.say(bold, "", fmt.Sprintf("the list of %s for %s is believed; %s lose their slots",
					counted(a.HeldBack.Size, "server"), a.Record, counted(a.HeldBack.Missing, "server")))
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// program tells which daemon a status is of. That of lb4d names none.
func program(raw []byte) string {
	if strings.HasPrefix(string(raw), `{"program":"lb7d"`) {
		return "lb7d"
	}
	return "lb4d"
}

// renderLB7 is lb7d's status as people read it: what is wrong first.
func renderLB7(st *control.LB7Status, now time.Time, term terminal) string {
	p := &page{term: term, now: now}
	p.say(bold, "", fmt.Sprintf("lb7d %s on %s (pid %d), %s, up %s since %s",
		st.Version, st.Host, st.PID, st.State, p.since(st.Started), p.clock(st.Started)))
	p.say(plain, "", st.Summary)
	if st.Config.Error == "" {
		p.say(plain, "", fmt.Sprintf("configuration %s, loaded %s ago", st.Config.Path, p.since(st.Config.Loaded)))
	} else {
		p.say(red, "RELOAD REFUSED", fmt.Sprintf("%s ago: %s; the configuration loaded %s ago stays in force",
			p.since(st.Config.ErrorAt), st.Config.Error, p.since(st.Config.Loaded)))
	}
	if p.now.Sub(st.Updated) > control.StaleAfter {
		p.say(red, "STUCK", fmt.Sprintf("nothing was done for %s; all of this is that old", p.since(st.Updated)))
	}
	if a := st.AgentCheck; a != nil && !a.Serving {
		p.say(yellow, "DRAINED", fmt.Sprintf("for %s, by %s: %s", p.since(a.Since), a.File, a.Answer))
	}
	for _, e := range st.Errors {
		p.say(red, "FAULT", e)
	}
	if h := st.HAProxy; h != nil && h.Running {
		p.say(plain, "", fmt.Sprintf("HAProxy %s (pid %d), up %s, %s", h.Version, h.PID, p.since(h.Since), counted(h.Sessions, "session")))
	}
	if t := st.Tunnel; t != nil {
		p.say(plain, "", fmt.Sprintf("tunnels %s for %s: %s up", strings.Join(t.Modes, " "), counted(len(t.VIPs), "VIP"), counted(len(t.Devices), "device")))
	}
	if len(st.Records) > 0 {
		p.records(st.Records)
	}
	for i := range st.Backends {
		p.slots(&st.Backends[i])
	}
	for i := range st.Directories {
		p.b.WriteByte('\n')
		p.directory(&st.Directories[i])
	}
	return p.b.String()
}

// records are the slot records and the sources behind them.
func (p *page) records(records []control.Record) {
	t := table{header: []string{"RECORD", "VERSION", "USED", "SOURCE", "AGE", "ASKED BY"}}
	for _, r := range records {
		age, by := "-", r.Holder
		if r.Held {
			by = "this host"
			if !r.At.IsZero() {
				age = p.since(r.At)
			}
		}
		t.add(text(r.Name), number(strconv.FormatUint(r.Version, 10)), number(fmt.Sprintf("%d/%d", r.Used, r.Slots)), text(r.Source), number(age), text(by))
	}
	p.table("slot records", t)
}

// slots are the servers of a back end, with the number that each has.
func (p *page) slots(b *control.Backend) {
	t := table{header: []string{"SLOT", "SERVER", "ADDRESS", "STATE", "WEIGHT", "GROUP", "NOTE"}}
	for _, s := range b.Servers {
		state, colour := s.State, stateColour("up")
		var notes []string
		switch {
		case s.State == "":
			state, colour = "unknown", plain
		case s.State == "ready" && !s.Running:
			state, colour = "down", red
		case s.State != "ready":
			colour = yellow
		}
		if s.State != "" && s.State != s.WantedState {
			notes = append(notes, "wanted "+s.WantedState)
		}
		if s.HeldByAgent != "" {
			notes = append(notes, "its own agent: "+s.HeldByAgent)
		}
		if s.PassedAt.IsZero() {
			notes = append(notes, "no check has passed yet")
		} else if s.WantedWeight != s.FullWeight {
			notes = append(notes, fmt.Sprintf("grows to weight %d", s.FullWeight))
		}
		t.add(number(strconv.Itoa(s.Slot)), text(s.ID), text(s.Address), coloured(state, colour),
			number(fmt.Sprintf("%d", s.Weight)), text(s.Group), text(strings.Join(notes, ", ")))
	}
	p.b.WriteByte('\n')
	p.say(bold, "", fmt.Sprintf("back end %s (%s): %s", b.Name, b.Takes, counted(len(b.Servers), "server")))
	if len(b.Servers) > 0 {
		t.write(&p.b, p.term)
	}
}
