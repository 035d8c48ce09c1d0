// Command lbctl asks a running lb4d how it is, and tells it what to do, over
// its unix socket.
//
// Each verb has a file of its own. The exit status is 0 when the question was
// answered, whatever the answer, or the request carried out; 1 when it could
// not be asked or was refused; 2 for wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lb4d/control"
)

// version is set by the build.
var version = "devel"

// The exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var socket string
	parsed := false
	root := &cobra.Command{
		Use:   "lbctl",
		Short: "Ask lb4d how it is, and tell it what to do",
		Long: `lbctl asks a running lb4d over its unix socket.

The exit status is 0 when lb4d answered, whatever the answer, or has done what
it was told; 1 when it could not be asked or has refused; 2 for wrong usage.
Long options take one dash or two.`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { parsed = true },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentFlags().StringVar(&socket, "socket", control.DefaultSocket, "`path` of the unix socket on which lb4d listens, or lb7d where it is asked")
	client := func() *control.Client { return control.NewClient(socket) }
	// lb7d has a socket of its own, unless one was named.
	lb7 := func() *control.Client {
		if !root.PersistentFlags().Changed("socket") {
			return control.NewLB7Client("")
		}
		return control.NewLB7Client(socket)
	}
	// present are the daemons of this host; none are looked for where a socket
	// was named.
	present := func() daemons {
		if root.PersistentFlags().Changed("socket") {
			return daemons{}
		}
		return daemonsAt(control.DefaultSocket, control.DefaultLB7Socket)
	}
	asked := false
	root.Flags().BoolVar(&asked, "version", false, "the same as the command version")
	versions := versionCommand(client)
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if asked {
			return versions.RunE(cmd, args)
		}
		return cmd.Help()
	}
	root.AddCommand(statusCommand(client, lb7, present), drainCommand(client, lb7), undrainCommand(client, lb7), resetCommand(client),
		disableCommand(client), enableCommand(client),
		explainCommand(client), planCommand(client), directoryCommand(lb7), confirmCommand(lb7), versions)

	root.SetArgs(doubleDash(root, args))
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "lbctl: interrupted")
		return exitFailed
	case parsed:
		fmt.Fprintln(stderr, "lbctl:", printable(err.Error()))
		return exitFailed
	default:
		fmt.Fprintf(stderr, "lbctl: %s\nlbctl --help tells the usage\n", strings.TrimSpace(err.Error()))
		return exitUsage
	}
}

// doubleDash lets -socket stand for --socket, and so on for each long flag of
// any command under root: lb4d takes its flags with one dash, and nobody
// should have to remember which of the two takes which. Bundles of one-letter
// flags stay what they are, since no long flag has their name.
func doubleDash(root *cobra.Command, args []string) []string {
	long := map[string]bool{"help": true}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { long[f.Name] = true })
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		name, dash := strings.CutPrefix(arg, "-")
		name, _, _ = strings.Cut(name, "=")
		if dash && len(name) > 1 && long[name] {
			out[i] = "-" + arg
		}
	}
	return out
}
