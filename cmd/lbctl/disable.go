package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb4d/control"
	"lb4d/maintenance"
)

// disableCommand writes the maintenance file.
func disableCommand(client func() *control.Client) *cobra.Command {
	var r control.DisableRequest
	var length time.Duration
	output := formatText
	cmd := &cobra.Command{
		Use:   "disable [SERVICE]",
		Short: "Withdraw this host's VIPs, or those of a service, without losing a packet",
		Long: `Write the maintenance file of this host, /etc/lb/disable, or with SERVICE that of one
service, /etc/lb/disable.d/SERVICE. Its VIPs are announced with GRACEFUL_SHUTDOWN at
once, and withdrawn when no packet comes to them any more, at the latest after
drain_time; lbctl status shows how far that has come. A VIP that several services
share is withdrawn when one of them is disabled.

The reason, who gave it and the end stand in the file. It may as well be written by
hand: touch /etc/lb/disable. Where the peers tell that no other host announces one of
the VIPs, this command refuses without --force; the file itself is always obeyed.

When the time of --for is over the file ceases to count, and lb4d removes it. What is
disabled already is no fault; the new reason and the new end stand from then on.`,
		Example: `  lbctl disable --reason "new kernel, ask Zoë" --for 30m
  lbctl disable www --reason "new certificate"
  lbctl status --watch
  lbctl enable`,
		Args:              arguments(0, 1),
		ValidArgsFunction: services(client),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && length < time.Second {
				return fmt.Errorf("--for %s is too short: write 1s or more, as in 30m or 2h", length)
			}
			r.Service, r.Seconds, r.By = strings.Join(args, ""), length.Seconds(), whoami()
			c := client()
			a, err := c.Disable(cmd.Context(), r)
			if refused(err) {
				note := maintenance.Note{Reason: r.Reason, By: r.By}
				if length > 0 {
					note.Until = time.Now().Add(length + time.Second).Truncate(time.Second)
				}
				a, err = byHand(cmd.Context(), c, r.Service, err, func(path string) error { return maintenance.Write(path, note) })
			}
			if err != nil {
				return err
			}
			return tellDisabled(cmd, output, a, disabledText)
		},
	}
	cmd.Flags().StringVarP(&r.Reason, "reason", "r", "", "why, in at most 200 bytes; it is shown wherever the VIPs are")
	cmd.Flags().DurationVar(&length, "for", 0, "after this time it ends by itself, as in 30m or 2h; otherwise never")
	cmd.Flags().BoolVar(&r.Force, "force", false, "also where no other host announces a VIP")
	outputFlag(cmd, &output)
	return cmd
}

// enableCommand removes what disableCommand wrote.
func enableCommand(client func() *control.Client) *cobra.Command {
	output := formatText
	cmd := &cobra.Command{
		Use:   "enable [SERVICE]",
		Short: "Announce them again: the end of disable",
		Long: `Remove the maintenance file of this host, or with SERVICE that of one service,
whoever has written it. The VIPs are announced again at once, as far as their members
answer. What is not disabled is no fault.`,
		Example: `  lbctl enable
  lbctl enable www`,
		Args:              arguments(0, 1),
		ValidArgsFunction: services(client),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := control.EnableRequest{Service: strings.Join(args, "")}
			c := client()
			a, err := c.Enable(cmd.Context(), r)
			if refused(err) {
				a, err = byHand(cmd.Context(), c, r.Service, err, func(path string) error {
					_, err := maintenance.Remove(path)
					return err
				})
			}
			if err != nil {
				return err
			}
			return tellDisabled(cmd, output, a, enabledText)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// refused tells that lb4d's user may not touch the file.
func refused(err error) bool {
	var refusal *control.Refusal
	return errors.As(err, &refusal) && refusal.Status == http.StatusForbidden
}

// seenWithin bounds the wait for lb4d to see a file that was written past it.
const seenWithin = 3 * time.Second

// byHand does to the file what lb4d's user may not and whoever runs lbctl may,
// such as root, and waits until lb4d has seen it. Where neither may, the error is
// lb4d's, which says what to do.
func byHand(ctx context.Context, c *control.Client, service string, refusal error, do func(path string) error) (*control.DisableAnswer, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	path := st.Maintenance.Path
	if service != "" {
		path = maintenance.ServicePath(path, service)
	}
	before := fileOf(st, service)
	if do(path) != nil {
		return nil, refusal
	}
	_, err = os.Lstat(path)
	wanted := err == nil
	for end := time.Now().Add(seenWithin); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, err = c.Status(ctx); err != nil {
			return nil, err
		}
		if now := fileOf(st, service); (now != nil) == wanted && (now == nil || before == nil || *now != *before) {
			break
		}
	}
	a := &control.DisableAnswer{Host: st.Host, Path: path, Was: before != nil, Disabled: wanted, VIPs: []control.VIP{}}
	if before != nil {
		a.WasReason = before.Reason
	}
	if now := fileOf(st, service); now != nil {
		a.Reason, a.Until = now.Reason, now.Until
	}
	for _, v := range st.VIPs {
		if service == "" || strings.Contains(" "+strings.Join(v.Services, " ")+" ", " "+service+" ") {
			a.VIPs = append(a.VIPs, v)
		}
	}
	return a, nil
}

// fileOf is what the status has on a maintenance file; nil: it is not there.
func fileOf(st *control.Status, service string) *control.ServiceMaintenance {
	if m := st.Maintenance; service == "" {
		if !m.Present {
			return nil
		}
		return &control.ServiceMaintenance{Path: m.Path, Since: m.Since, Reason: m.Reason, Until: m.Until, By: m.By}
	}
	for _, s := range st.Maintenance.Services {
		if s.Service == service {
			return &s
		}
	}
	return nil
}

// whoami is who runs lbctl, behind sudo too; empty: nobody can tell.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	return name
}

func tellDisabled(cmd *cobra.Command, output format, a *control.DisableAnswer, sentence func(*control.DisableAnswer, *page) string) error {
	err := show(cmd.OutOrStdout(), output, a, func(p *page) {
		p.say(bold, "", sentence(a, p))
		p.vips(a.VIPs)
	})
	if err != nil {
		return err
	}
	for _, w := range a.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "lbctl: warning:", printable(w))
	}
	for _, e := range a.Errors {
		fmt.Fprintln(cmd.ErrOrStderr(), "lbctl: failed, and tried again each second:", printable(e))
	}
	return nil
}

func disabledText(a *control.DisableAnswer, p *page) string {
	if !a.Disabled {
		return fmt.Sprintf("%s on %s was removed again by somebody else", a.Path, a.Host)
	}
	s := fmt.Sprintf("%s is there on %s%s", a.Path, a.Host, because(a.Reason))
	if !a.Until.IsZero() {
		s += fmt.Sprintf(", until %s (%s)", p.clock(a.Until), duration(a.Until.Sub(p.now)))
	}
	if a.Was {
		s += "; it was there before" + because(a.WasReason)
	}
	return s
}

func enabledText(a *control.DisableAnswer, _ *page) string {
	switch {
	case a.Disabled:
		return fmt.Sprintf("%s on %s is there again%s", a.Path, a.Host, because(a.Reason))
	case !a.Was:
		return fmt.Sprintf("%s was not there on %s", a.Path, a.Host)
	}
	return fmt.Sprintf("%s is gone on %s%s", a.Path, a.Host, because(a.WasReason))
}

// services completes the names of services, as far as lb4d can be asked.
func services(client func() *control.Client) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		st, err := client().Status(ctx)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, s := range st.Services {
			if strings.HasPrefix(s.Name, typed) {
				names = append(names, s.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
