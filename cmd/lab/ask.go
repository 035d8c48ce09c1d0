package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"lb4d/lab"
)

// ask sends a request without input. The first INT or TERM is passed on, so
// that what is under way can say how it went; the second ends this program.
func ask(conn net.Conn, req lab.Request) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	passed := make(chan syscall.Signal, 1)
	go func() {
		passed <- (<-signals).(syscall.Signal)
		<-signals
		cancel()
	}()
	return lab.Do(ctx, conn, req, lab.Terminal{Out: os.Stdout, Err: os.Stderr, Signals: passed})
}

// simple is a verb that takes a number of words and no flags.
func simple(name string, least, most int) func([]string) (int, error) {
	return func(args []string) (int, error) {
		if len(args) < least || len(args) > most {
			return statusUsage, errors.New("wrong number of arguments")
		}
		conn, err := connect()
		if err != nil {
			return statusFault, err
		}
		return ask(conn, lab.Request{Verb: name, Args: args})
	}
}

func status(args []string) (int, error) {
	f := flagSet("status")
	asJSON := f.Bool("json", false, "print JSON")
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	conn, err := connect()
	if err != nil {
		return statusFault, err
	}
	return ask(conn, lab.Request{Verb: "status", JSON: *asJSON})
}

func kill(args []string) (int, error) {
	f := flagSet("kill")
	name := f.String("s", "KILL", "signal, by `name` or number")
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	sig, err := parseSignal(*name)
	if err != nil {
		return statusUsage, err
	}
	if f.NArg() != 2 {
		return statusUsage, errors.New("wrong number of arguments")
	}
	conn, err := connect()
	if err != nil {
		return statusFault, err
	}
	return ask(conn, lab.Request{Verb: "kill", Args: f.Args(), Signal: int(sig)})
}

// parseSignal reads HUP, SIGHUP and 1.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG"))
	if sig == 0 {
		return 0, fmt.Errorf("%q is no signal", s)
	}
	return sig, nil
}

func putLoad(args []string) (int, error) {
	f := flagSet("load")
	req := lab.LoadRequest{}
	f.IntVar(&req.Slow, "slow", 40, "slow downloads that are always in flight")
	f.DurationVar(&req.SlowFor, "slow-for", 8*time.Second, "how long each of them takes")
	f.Float64Var(&req.Rate, "rate", 30, "quick requests that start each second")
	f.DurationVar(&req.For, "for", 0, "how long; 0: until interrupted")
	asJSON := f.Bool("json", false, "print the result as JSON, at the end")
	f.Func("vip", "service `address` to send to, many times if need be; all where none", func(s string) error {
		a, err := netip.ParseAddr(s)
		req.VIPs = append(req.VIPs, a)
		return err
	})
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	if f.NArg() > 0 {
		return statusUsage, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	conn, err := connect()
	if err != nil {
		return statusFault, err
	}
	return ask(conn, lab.Request{Verb: "load", Load: &req, JSON: *asJSON, Terminal: terminalSize(os.Stdout)})
}

func play(args []string) (int, error) {
	f := flagSet("run")
	sizes := sizeFlags(f)
	asJSON := f.Bool("json", false, "print the report as JSON")
	list := f.Bool("list", false, "name the scenarios")
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	if *list {
		for _, s := range lab.Scenarios() {
			fmt.Printf("%-12s %s\n", s[0], s[1])
		}
		return 0, nil
	}
	if f.NArg() > 1 {
		return statusUsage, fmt.Errorf("unexpected argument %q", f.Arg(1))
	}
	upReq, err := sizes.request()
	if err != nil {
		return statusUsage, err
	}
	req := lab.Request{Verb: "run", Args: f.Args(), JSON: *asJSON}
	conn, err := connect()
	switch {
	case errors.Is(err, errNoLab):
		progress := os.Stdout
		if *asJSON {
			progress = os.Stderr
		}
		return private(upReq, req, progress, os.Stdout)
	case err != nil:
		return statusFault, err
	case sizes.given():
		conn.Close()
		return statusUsage, errors.New("a lab is up already, with sizes of its own: end it with lab down")
	}
	fmt.Fprintln(os.Stderr, "in the lab that is up:")
	return ask(conn, req)
}

func execute(args []string) (int, error) {
	if len(args) == 0 {
		return statusUsage, errors.New("no host given")
	}
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	conn, err := connect()
	if err != nil {
		return statusFault, err
	}
	req := lab.Request{Verb: "exec", Args: args}
	t := lab.Terminal{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	signals := make(chan os.Signal, 8)
	passed := make(chan syscall.Signal, 8)
	t.Signals = passed
	notify := []os.Signal{syscall.SIGTERM, syscall.SIGHUP}
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		signal.Notify(signals, append(notify, syscall.SIGINT)...)
		go passSignals(signals, passed, nil)
		return lab.Do(context.Background(), conn, req, t)
	}
	old, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		conn.Close()
		return statusFault, fmt.Errorf("taking the terminal: %w", err)
	}
	defer term.Restore(int(os.Stdin.Fd()), old)
	req.Terminal = terminalSize(os.Stdout)
	if kind := os.Getenv("TERM"); kind != "" {
		req.Env = []string{"TERM=" + kind}
	}
	resize := make(chan lab.Size, 1)
	t.Resize = resize
	signal.Notify(signals, append(notify, syscall.SIGWINCH)...)
	go passSignals(signals, passed, resize)
	return lab.Do(context.Background(), conn, req, t)
}

// passSignals passes signals on; that of a changed window as its size.
func passSignals(from <-chan os.Signal, to chan<- syscall.Signal, resize chan<- lab.Size) {
	for sig := range from {
		if sig == syscall.SIGWINCH {
			if size := terminalSize(os.Stdout); size != nil {
				resize <- *size
			}
			continue
		}
		to <- sig.(syscall.Signal)
	}
}

// terminalSize is the size of the terminal that f is, nil where it is none.
func terminalSize(f *os.File) *lab.Size {
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return nil
	}
	return &lab.Size{Rows: rows, Columns: columns}
}
