package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// maxMoving bounds how many services of which flows move are told one by one;
// -o json has them all.
const maxMoving = 200

// planCommand tells what a reload would change.
func planCommand(client func() *control.Client) *cobra.Command {
	output, config := formatText, ""
	cmd := &cobra.Command{
		Use:   "plan -config FILE",
		Short: "Tell what a reload with another configuration would change",
		Long: `Tell what a reload would change if the configuration were the one in FILE, in the
order in which it would be done, and what share of flows would go to another
member. Nothing is changed. The password files that FILE names are read by lb4d.

The share is of all possible flows, and counts where a flow comes to a host that
does not carry it yet; those that a host carries keep their member. Members that
join are taken to be up.

The exit status is 1 where a reload would be refused.`,
		Example: `  lbctl plan -config /etc/lb/lb4d.toml
  lbctl plan -config lb4d.toml.new -o json | jq '.services[] | select(.moved > 0)'`,
		// Here, because cobra looks for required flags only after it has begun
		// to run the verb, when wrong usage can no longer be told from failure.
		Args: func(cmd *cobra.Command, args []string) error {
			if err := arguments(0, 0)(cmd, args); err != nil || config != "" {
				return err
			}
			return errors.New("name the configuration with -config FILE")
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readConfig(config)
			if err != nil {
				return err
			}
			a, err := client().Plan(cmd.Context(), control.PlanRequest{Name: config, Config: text})
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), output, a, func(p *page) { p.plan(a) }); err != nil {
				return err
			}
			if a.Refused {
				return errors.New("a reload would be refused and change nothing")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the configuration `file` to compare with the one in force")
	_ = cmd.MarkFlagFilename("config", "toml")
	outputFlag(cmd, &output)
	return cmd
}

// readConfig is the text of a configuration file.
func readConfig(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, control.MaxConfig+1))
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	if len(text) > control.MaxConfig {
		return "", fmt.Errorf("reading the configuration: %s is larger than %d MiB", path, control.MaxConfig>>20)
	}
	return string(text), nil
}

func (p *page) plan(a *control.PlanAnswer) {
	for _, f := range a.Faults {
		p.say(red, "FAULT", f)
	}
	if len(a.Faults) > 0 {
		return
	}
	for _, r := range a.Restart {
		p.say(red, "NEEDS A RESTART", r)
	}
	for _, s := range a.Settings {
		p.say(plain, "SETTING", s)
	}
	p.changes("CHECK", a.Checks)
	var gone, come []control.Change
	for _, v := range a.VIPs {
		if v.Change == "announced" || v.Change == "changed" {
			come = append(come, v)
		} else {
			gone = append(gone, v)
		}
	}
	p.changes("VIP", gone)
	for _, op := range a.Operations {
		p.say(plain, "IPVS", op)
	}
	if a.MoreOperations > 0 {
		p.say(plain, "IPVS", fmt.Sprintf("and %d more operations", a.MoreOperations))
	}
	p.changes("VIP", come)
	p.changes("PEER", a.Peers)
	if len(a.Restart)+len(a.Settings)+len(a.Checks)+len(a.VIPs)+len(a.Operations)+len(a.Peers) == 0 {
		p.say(bold, "", "nothing would change on "+a.Host)
		return
	}
	p.moving(a)
}

// changes writes a line for each change.
func (p *page) changes(label string, changes []control.Change) {
	for _, c := range changes {
		line := c.What + " " + c.Change
		if c.Reason != "" {
			line += ": " + c.Reason
		}
		p.say(changeColour(c.Change), label, line)
	}
}

func changeColour(change string) sgr {
	switch change {
	case "withdrawn", "removed":
		return red
	case "draining", "changed":
		return yellow
	}
	return green
}

// moving is the table of the services of which flows move.
func (p *page) moving(a *control.PlanAnswer) {
	t := table{header: []string{"FLOWS TO", "CHANGE", "MOVED"}}
	still, more := 0, 0
	for _, s := range a.Services {
		var share cell
		switch {
		case s.Change == "none":
			still++
			continue
		case len(t.rows) == maxMoving:
			more++
			continue
		case s.Error != "":
			share = text("unknown: " + s.Error)
		case s.Moved != nil:
			share = text(percent(*s.Moved))
		default:
			share = text("-")
		}
		t.add(text(s.Service), coloured(s.Change, changeColour(s.Change)), share)
	}
	if len(t.rows) > 0 {
		p.table("services", t)
	}
	if more > 0 {
		p.say(plain, "", fmt.Sprintf("and %d more services: see -o json", more))
	}
	switch {
	case still == 1:
		p.say(plain, "", "of 1 service no flow moves")
	case still > 1:
		p.say(plain, "", fmt.Sprintf("of %d services no flow moves", still))
	}
}

// percent is a share with one digit behind the point; what is not nothing is
// not shown as nothing.
func percent(share float64) string {
	if share > 0 && share < 0.001 {
		return "<0.1%"
	}
	return strconv.FormatFloat(100*share, 'f', 1, 64) + "%"
}
