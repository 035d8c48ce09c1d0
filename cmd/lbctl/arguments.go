package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// arguments wants so many of them, and says otherwise how the command is written.
// Cobra's own words count "arg(s)", and take one too many for an unknown command.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(args); {
		case n < least:
			return fmt.Errorf("too few arguments: write %s", cmd.UseLine())
		case n > most:
			return fmt.Errorf("%q is one argument too many: write %s", args[most], cmd.UseLine())
		}
		return nil
	}
}
