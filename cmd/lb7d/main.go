// Command lb7d runs beside HAProxy: it takes packets out of the tunnels of the
// LB4 hosts, keeps HAProxy's servers in step with where they are listed, and
// answers its agent checks.
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
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"lb4d/config"
	"lb4d/internal/service"
	"lb4d/lb7"
)

// version is set by the build.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: 0 is a stop that was asked for, 1 a fault that the last
// line on stderr tells, 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lb7d", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		path        = flags.String("config", "/etc/lb/lb7d.toml", "configuration `file`")
		check       = flags.Bool("check", false, "validate the configuration and exit: 0, or 1 with one line for each fault")
		teardown    = flags.Bool("teardown", false, "remove the tunnels and VIPs that lb7d has left in place, tell what was done, and exit")
		logLevel    = flags.String("log-level", "info", "debug, info, warn or error")
		showVersion = flags.Bool("version", false, "print the version and exit")

		agentOnly   = flags.Bool("agent-check", false, "answer HAProxy's agent checks and do nothing else, without a configuration: for the servers")
		agentFile   = flags.String("file", "/etc/lb/agent-check", "with -agent-check: the `file` to answer from")
		agentListen = flags.String("listen", ":5555", "with -agent-check: the `addresses` to listen on, with commas between; :PORT is every address")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	usage := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "lb7d: "+format+"\n", args...)
		return 2
	}
	if flags.NArg() > 0 {
		return usage("unexpected argument %q; usage: lb7d [-check|-teardown] -config FILE, or lb7d -agent-check", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, name := range []string{"file", "listen"} {
		if given[name] && !*agentOnly {
			return usage("-%s belongs to -agent-check; the configuration file has the key for the daemon", name)
		}
	}
	if *agentOnly && (given["config"] || *check || *teardown) {
		return usage("-agent-check runs without a configuration; leave -config, -check and -teardown out, or write [agent_check] into the file")
	}
	if *check && *teardown {
		return usage("-check and -teardown are two things; leave one of them out")
	}
	if *showVersion {
		fmt.Fprintln(stdout, "lb7d", version)
		return 0
	}
	if *check {
		if _, err := config.LoadLB7(*path); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	if *teardown {
		return runTeardown(*path, stdout, stderr)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(*logLevel)); err != nil {
		return usage("-log-level %q is not known; use debug, info, warn or error", *logLevel)
	}
	log := service.Logger(stderr, level)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	notify := func(state string) { _, _ = sd.SdNotify(false, state) }

	var err error
	if *agentOnly {
		err = runAgent(ctx, *agentFile, *agentListen, hup, log, notify)
	} else {
		reload := make(chan struct{})
		go func() {
			for range hup {
				reload <- struct{}{}
			}
		}()
		watchdog, werr := sd.SdWatchdogEnabled(false)
		if werr != nil {
			log.Warn("watchdog not set", "err", werr)
		}
		err = lb7.Run(ctx, lb7.Options{
			ConfigPath: *path, Version: version, Log: log,
			Reload: reload, Notify: notify, Watchdog: watchdog,
		})
	}
	if err != nil {
		fmt.Fprintln(stderr, "lb7d:", err)
		return 1
	}
	return 0
}
