package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// explainCommand tells where a flow goes.
func explainCommand(client func() *control.Client) *cobra.Command {
	output := formatText
	cmd := &cobra.Command{
		Use:   "explain CLIENT:PORT VIP:PORT[/udp]",
		Short: "Tell which member a new flow goes to, and why",
		Long: `Tell which member this host sends a flow to that is new to it: the slot of the Maglev
table that the flow's source points to, the member that owns the slot, and the one
that gets the flow while the owner takes none. All of it is computed from the table
that the kernel has; no packet is sent.

A flow that this host already carries keeps its member, whatever the table says.
IPv6 addresses stand in brackets.`,
		Example: `  lbctl explain 203.0.113.7:40000 198.51.100.1:80
  lbctl explain '[2001:db8::7]:40000' '[2001:db8::c633:6401]:53/udp'`,
		Args:              arguments(2, 2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := client().Explain(cmd.Context(), control.ExplainRequest{Client: args[0], Service: args[1]})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, a, func(p *page) { p.explain(a) })
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// show writes an answer in one of the formats.
func show(out io.Writer, output format, answer any, write func(*page)) error {
	text := ""
	if output == formatJSON {
		raw, err := json.Marshal(answer)
		if err == nil {
			text, err = formatted(raw, false)
		}
		if err != nil {
			return fmt.Errorf("formatting the answer: %w", err)
		}
	} else {
		p := &page{term: terminalOf(out), now: time.Now()}
		write(p)
		text = p.b.String()
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

func (p *page) explain(a *control.ExplainAnswer) {
	p.say(bold, "", fmt.Sprintf("%s to %s (service %s, pool %s) on %s", a.Client, a.Service, a.Name, a.Pool, a.Host))
	p.say(plain, "SLOT ", fmt.Sprintf("%d of %d, table %s", a.Slot, a.Slots, a.Fingerprint))
	if a.Owner != nil {
		p.say(plain, "OWNER", standsAs(a.Owner))
	}
	if a.Used != nil {
		p.say(stateColour(a.Used.State), "USED ", standsAs(a.Used))
	} else {
		p.say(red, "USED ", "none")
	}
	p.say(plain, "WHY  ", a.Reason)
	p.say(plain, "BUT  ", a.Kept)
	if a.VIPState != "announced" {
		p.say(yellow, "AND  ", fmt.Sprintf("the VIP is %s here: %s", a.VIPState, a.VIPReason))
	}
}

// standsAs is a member behind a service in words.
func standsAs(d *control.Destination) string {
	who := strings.TrimSpace(d.Member + " " + d.Address)
	if d.Weight == 0 {
		return fmt.Sprintf("%s, weight 0 of %d: %s", who, d.FullWeight, d.Reason)
	}
	return fmt.Sprintf("%s, weight %d: %s", who, d.Weight, d.Reason)
}
