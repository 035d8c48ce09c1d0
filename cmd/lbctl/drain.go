package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// drainCommand keeps new flows from a member.
func drainCommand(client, lb7 func() *control.Client) *cobra.Command {
	var r control.DrainRequest
	var timeout time.Duration
	output := formatText
	cmd := &cobra.Command{
		Use:   "drain [MEMBER]",
		Short: "Send no new flows to a member; those in progress stay",
		Long: `Have this host send no new flows to a member of a pool. Flows in progress stay to
their end; how many are left is in the answer and in lbctl status. The drain
stands, whatever the member's check says, until lbctl undrain, also across
restarts of lb4d.

MEMBER is its name, or POOL/NAME where several pools have a member of that name.
Other LB4 hosts are not told: drain the member on each of them.

Where a service would fall below its quorum, which withdraws its VIPs, the drain
is refused without --force. A member that is drained already is no fault; with
another reason, that one stands from then on.

On an LB7 host, without a MEMBER, it drains that host: lb7d writes the agent
check's file, and lbctl waits until HAProxy has no session left, telling how many
there are meanwhile. The drain stands also where they outlast --timeout.`,
		Example: `  lbctl drain lb7-1 --reason "new disk, ask Zoë"
  lbctl status --watch
  lbctl undrain lb7-1`,
		Args:              arguments(0, 1),
		ValidArgsFunction: members(client, func(m control.Member) bool { return m.Drained == nil }),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if r.Force {
					return fmt.Errorf("--force belongs to the drain of a member: name it, or leave --force out")
				}
				return drainHost(cmd, lb7(), output, r.Reason, timeout)
			}
			if cmd.Flags().Changed("timeout") {
				return fmt.Errorf("--timeout belongs to the drain of an LB7 host itself; how many flows a member has left is in lbctl status")
			}
			r.Member = args[0]
			a, err := client().Drain(cmd.Context(), r)
			return tell(cmd, output, a, err, drainedText)
		},
	}
	cmd.Flags().StringVarP(&r.Reason, "reason", "r", "", "why, in at most 200 bytes; it is shown wherever the member is")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "on an LB7 host: how long to wait for its sessions; 0s: not at all")
	cmd.Flags().BoolVar(&r.Force, "force", false, "also where a service falls below its quorum by it")
	outputFlag(cmd, &output)
	return cmd
}

// undrainCommand ends what drainCommand began.
func undrainCommand(client, lb7 func() *control.Client) *cobra.Command {
	output := formatText
	cmd := &cobra.Command{
		Use:   "undrain [MEMBER]",
		Short: "Let a drained member take new flows again",
		Long: `End a drain that lbctl drain began on this host: the member takes new flows as far
as its check lets it. A member that is not drained is no fault.

MEMBER is its name, or POOL/NAME where several pools have a member of that name. On
an LB7 host, without a MEMBER, it ends the drain of that host.`,
		Example:           `  lbctl undrain lb7-1`,
		Args:              arguments(0, 1),
		ValidArgsFunction: members(client, func(m control.Member) bool { return m.Drained != nil }),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return undrainHost(cmd, lb7(), output)
			}
			a, err := client().Undrain(cmd.Context(), control.DrainRequest{Member: args[0]})
			return tell(cmd, output, a, err, undrainedText)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// tell shows what has become of a request. An error is what must not be taken
// for done.
func tell(cmd *cobra.Command, output format, a *control.DrainAnswer, err error, sentence func(*control.DrainAnswer, *page) string) error {
	if err != nil {
		return err
	}
	out, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	text := ""
	if output == formatJSON {
		raw, err := json.Marshal(a)
		if err == nil {
			text, err = formatted(raw, false)
		}
		if err != nil {
			return fmt.Errorf("formatting the answer: %w", err)
		}
	} else {
		p := &page{term: terminalOf(out), now: time.Now()}
		p.say(bold, "", sentence(a, p))
		p.members(a.Members)
		text = p.b.String()
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	for _, w := range a.Warnings {
		fmt.Fprintln(stderr, "lbctl: warning:", printable(w))
	}
	for _, e := range a.Errors {
		fmt.Fprintln(stderr, "lbctl: failed, and tried again each second:", printable(e))
	}
	// Who drains a member means to work on it next.
	if a.Drained == nil || a.InEffect {
		return nil
	}
	for _, m := range a.Members {
		if m.Weight > 0 {
			return fmt.Errorf("the drain stands and is not in effect: %s still has weight %d in the kernel of %s: see lbctl status", m.Address, m.Weight, a.Host)
		}
	}
	return fmt.Errorf("the drain stands, and whether it is in effect in the kernel of %s is not known yet: see lbctl status", a.Host)
}

func drainedText(a *control.DrainAnswer, p *page) string {
	who := a.Member + " of pool " + a.Pool
	switch {
	case a.Drained == nil: // no lb4d answers so
		return who + " is not drained on " + a.Host
	case a.Was == nil:
		return who + " is drained on " + a.Host + because(a.Drained.Reason)
	case !a.Changed:
		return fmt.Sprintf("%s was drained on %s already, %s ago%s", who, a.Host, p.since(a.Was.Since), because(a.Was.Reason))
	}
	return fmt.Sprintf("%s was drained on %s already, %s ago%s; the reason is now: %s",
		who, a.Host, p.since(a.Was.Since), because(a.Was.Reason), a.Drained.Reason)
}

func undrainedText(a *control.DrainAnswer, p *page) string {
	who := a.Member + " of pool " + a.Pool
	if a.Was == nil {
		return who + " was not drained on " + a.Host
	}
	return fmt.Sprintf("%s is no longer drained on %s, after %s%s", who, a.Host, p.since(a.Was.Since), because(a.Was.Reason))
}

// because is a reason after a sentence.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// members completes the names of those members that want lets through, as far
// as lb4d can be asked.
func members(client func() *control.Client, want func(control.Member) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		st, err := client().Status(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		pools := map[string][]string{} // by the member's name
		for _, m := range st.Members {
			if !slices.Contains(pools[m.Name], m.Pool) {
				pools[m.Name] = append(pools[m.Name], m.Pool)
			}
		}
		var names []string
		for _, m := range st.Members {
			name := m.Name
			if len(pools[m.Name]) > 1 {
				name = m.Pool + "/" + m.Name
			}
			if want(m) && strings.HasPrefix(name, typed) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
