package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// resetCommand forgets the failures that hold a VIP back.
func resetCommand(client func() *control.Client) *cobra.Command {
	output, all := formatText, false
	cmd := &cobra.Command{
		Use:   "reset VIP | --all",
		Short: "Announce a VIP at once that is held down for its failures",
		Long: `Forget how often the checks of a VIP have failed. One that is held down for that is
announced at once, and the next failures cost nothing again, as far as [damping] in
the configuration tolerates them. A VIP that has not failed is no fault.`,
		Example: `  lbctl reset 198.51.100.1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := arguments(0, 1)(cmd, args); err != nil {
				return err
			}
			if (len(args) == 1) == all {
				return errors.New("name one VIP, or all of them with --all")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := client().Reset(cmd.Context(), control.ResetRequest{VIP: strings.Join(args, "")})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, a, func(p *page) { p.reset(a) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "of all VIPs")
	outputFlag(cmd, &output)
	return cmd
}

func (p *page) reset(a *control.ResetAnswer) {
	switch a.Reset {
	case 0:
		p.say(bold, "", "no failures were remembered on "+a.Host)
	case 1:
		p.say(bold, "", fmt.Sprintf("the failures of 1 VIP are forgotten on %s", a.Host))
	default:
		p.say(bold, "", fmt.Sprintf("the failures of %d VIPs are forgotten on %s", a.Reset, a.Host))
	}
	if len(a.VIPs) > 0 {
		p.vips(a.VIPs)
	}
	for _, e := range a.Errors {
		p.say(red, "FAILED", e)
	}
}
