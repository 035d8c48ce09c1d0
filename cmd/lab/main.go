// Command lab runs a three-tier load balancer on this machine: users, routers,
// LB4 hosts with lb4d, LB7 hosts with HAProxy, and servers. Where this
// machine's kernel has no IPVS, it runs in a User-Mode Linux kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"lb4d/lab"
	"lb4d/lab/kernel"
)

// version is set by the build.
var version = "devel"

// Exit statuses beside those of commands run in the lab.
const (
	statusFault = 1
	statusUsage = 2
)

func main() {
	lab.Init()
	os.Exit(run(os.Args[1:]))
}

// verb is one of the things that the program does.
type verb struct {
	name, args, about string
	do                func(args []string) (int, error)
}

// verbs is a function because usage, which some of them print, lists them all.
func verbs() []verb {
	return []verb{
		{"install", "[PACKAGE ...]", "install the Debian packages that the lab needs, and those named", install},
		{"up", "[-lb4 N] [-lb7 N] [-servers N] [-full] [-rr gobgp|bird] [-balancer lb4d|keepalived] [-foreground]", "bring a lab up and leave it running", up},
		{"down", "", "end it", down},
		{"status", "[-json]", "list hosts, processes and routes", status},
		{"exec", "HOST [COMMAND [ARG ...]]", "run a command on a host, a shell where none is given", execute},
		{"logs", "HOST [PROCESS]", "print what the processes of a host have logged", simple("logs", 1, 2)},
		{"start", "HOST PROCESS", "start a process that has ended", simple("start", 2, 2)},
		{"stop", "HOST PROCESS", "end a process with TERM", simple("stop", 2, 2)},
		{"restart", "HOST PROCESS", "end a process and start it again", simple("restart", 2, 2)},
		{"kill", "[-s SIGNAL] HOST PROCESS", "send a signal, KILL where none is named", kill},
		{"load", "[-slow N] [-rate R] [-for 30s] [-vip A] [-json]", "send users' requests and show what becomes of them", putLoad},
		{"run", "[-list] [-json] [sizes as in up] [SCENARIO]", "play a scenario and compare what is measured with what is promised", play},
		{"compare", "[-flows N] [-seed N] [-event NAME] [-alone] [-json] [sizes as in up]", "put lb4d, and keepalived with ExaBGP, through the same events, and count the broken flows of both", compare},
		{"test-exec", "PROGRAM [ARG ...]", "run a test binary in a machine of its own: go test -exec 'lab test-exec'", testExec},
		{"version", "", "print the version", func([]string) (int, error) { fmt.Println("lab", version); return 0, nil }},
		// Of no use by hand: the two ends of a machine.
		{"daemon", "", "", daemon},
		{"guest", "", "", guest},
	}
}

func run(args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(os.Stdout)
		if len(args) == 0 {
			return statusUsage
		}
		return 0
	}
	for _, v := range verbs() {
		if v.name != args[0] {
			continue
		}
		if len(args) > 1 && (args[1] == "-h" || args[1] == "-help" || args[1] == "--help") {
			fmt.Printf("usage: lab %s\n\n%s\n\n", strings.TrimSpace(v.name+" "+v.args), v.about)
			if !strings.HasPrefix(v.args, "[-") {
				return 0 // It has no flags of its own to list.
			}
		}
		code, err := v.do(args[1:])
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case err != nil && code == statusUsage:
			fmt.Fprintf(os.Stderr, "lab %s: %v\nusage: lab %s %s\n", v.name, err, v.name, v.args)
		case err != nil:
			fmt.Fprintf(os.Stderr, "lab %s: %v\n", v.name, err)
		}
		if err != nil && code <= 0 {
			return statusFault
		}
		return code
	}
	fmt.Fprintf(os.Stderr, "lab: %q is not known\n\n", args[0])
	usage(os.Stderr)
	return statusUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "A three-tier load balancer on this machine, to look at and to break.")
	fmt.Fprintln(w)
	for _, v := range verbs() {
		if v.about != "" {
			fmt.Fprintf(w, "  lab %s\n        %s\n", strings.TrimSpace(v.name+" "+v.args), v.about)
		}
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "A second lab beside one that is up: set LAB_SOCKET to another path than "+socketPath+".")
}

// flagSet is for a verb's flags. Faults are returned, not printed.
func flagSet(name string) *flag.FlagSet {
	f := flag.NewFlagSet("lab "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse reads flags, and prints them where help was asked for.
func parse(f *flag.FlagSet, args []string) error {
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
	}
	return err
}

// packages are what the lab runs and its tests call, beside what the kernel
// package needs.
var packages = []string{"haproxy", "bird2", "gobgpd", "curl"}

func install(more []string) (int, error) {
	ctx, stop := interruptible()
	defer stop()
	return 0, kernel.Install(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)), slices.Concat(packages, more)...)
}

func testExec(args []string) (int, error) {
	if len(args) == 0 {
		return statusUsage, errors.New("no program given")
	}
	ctx, stop := interruptible()
	defer stop()
	return kernel.TestExec(ctx, args, os.Stdout, os.Stderr)
}

// interruptible is a context that INT and TERM end.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}
