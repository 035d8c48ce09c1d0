// Command lb4d announces service addresses over BGP while the load balancers
// behind it are healthy, and has IPVS forward their packets.
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
	"lb4d/daemon"
	"lb4d/internal/service"
)

// version is set by the build.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: 0 is a stop that was asked for, 1 a fault that the last
// line on stderr tells, 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lb4d", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		path        = flags.String("config", "/etc/lb/lb4d.toml", "configuration `file`")
		check       = flags.Bool("check", false, "validate the configuration and exit: 0, or 1 with one line for each fault")
		logLevel    = flags.String("log-level", "info", "debug, info, warn or error")
		showVersion = flags.Bool("version", false, "print the version and exit")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "lb4d: unexpected argument %q; usage: lb4d [-check] -config FILE\n", flags.Arg(0))
		return 2
	}
	if *showVersion {
		fmt.Fprintln(stdout, "lb4d", version)
		return 0
	}
	if *check {
		if _, err := config.Load(*path); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(*logLevel)); err != nil {
		fmt.Fprintf(stderr, "lb4d: -log-level %q is not known; use debug, info, warn or error\n", *logLevel)
		return 2
	}
	log := service.Logger(stderr, level)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	term, hurry := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-term
		stop()
		<-term // whoever asks again will not wait for the drain
		close(hurry)
	}()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	reload := make(chan struct{})
	go func() {
		for range hup {
			reload <- struct{}{}
		}
	}()

	// USR2 hands over to the process that the service manager starts next.
	usr2 := make(chan os.Signal, 1)
	signal.Notify(usr2, syscall.SIGUSR2)
	handOver := make(chan struct{})
	go func() {
		for range usr2 {
			handOver <- struct{}{}
		}
	}()

	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog not set", "err", err)
	}
	err = daemon.Run(ctx, daemon.Options{
		ConfigPath: *path,
		Version:    version,
		Log:        log,
		Reload:     reload,
		HandOver:   handOver,
		Hurry:      hurry,
		Notify:     func(state string) { _, _ = sd.SdNotify(false, state) },
		Watchdog:   watchdog,
	})
	if err != nil {
		fmt.Fprintln(stderr, "lb4d:", err)
		return 1
	}
	return 0
}
