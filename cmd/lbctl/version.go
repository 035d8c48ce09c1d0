package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// versionCommand tells the versions of lbctl and of the lb4d that runs: after
// an upgrade they differ until lb4d is restarted.
func versionCommand(client func() *control.Client) *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Show the versions of lbctl and of the lb4d that runs",
		Args:              arguments(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "lbctl %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			st, err := client().Status(cmd.Context())
			if err != nil {
				// Which version lbctl has does not hang on lb4d.
				fmt.Fprintln(out, printable(err.Error()))
				return nil
			}
			fmt.Fprintf(out, "lb4d %s (pid %d on %s)\n", printable(st.Version), st.PID, printable(st.Host))
			return nil
		},
	}
}
