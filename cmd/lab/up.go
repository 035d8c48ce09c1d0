package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"lb4d/lab"
)

// sizing is what the flags say of a lab's sizes.
type sizing struct {
	flags             *flag.FlagSet
	lb4, lb7, servers *int
	full              *bool
	reflector         *string
	balancer          *string
}

// sizeFlags adds the flags that say what lab to bring up.
func sizeFlags(f *flag.FlagSet) *sizing {
	d := lab.DefaultSizes
	return &sizing{
		flags:     f,
		lb4:       f.Int("lb4", d.LB4, "number of LB4 hosts"),
		lb7:       f.Int("lb7", d.LB7, "number of LB7 hosts"),
		servers:   f.Int("servers", d.Servers, "number of servers"),
		full:      f.Bool("full", false, fmt.Sprintf("the sizes of a small real installation: %d, %d, %d", lab.FullSizes.LB4, lab.FullSizes.LB7, lab.FullSizes.Servers)),
		reflector: f.String("rr", string(lab.GoBGP), "what the route reflectors run: gobgp or bird"),
		balancer:  f.String("balancer", string(lab.LB4D), "what the LB4 hosts run: lb4d, or keepalived (with ExaBGP) to compare with"),
	}
}

// sizes are those of the flags; -lb4 and its like win over -full.
func (s *sizing) sizes() lab.Sizes {
	sizes := lab.DefaultSizes
	if *s.full {
		sizes = lab.FullSizes
	}
	s.flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "lb4":
			sizes.LB4 = *s.lb4
		case "lb7":
			sizes.LB7 = *s.lb7
		case "servers":
			sizes.Servers = *s.servers
		}
	})
	return sizes
}

// given tells whether any of the flags was.
func (s *sizing) given() bool {
	given := false
	s.flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "lb4", "lb7", "servers", "full", "rr", "balancer":
			given = true
		}
	})
	return given
}

// request asks for the lab that the flags describe, or says what is wrong
// with them before anything is booted.
func (s *sizing) request() (lab.Request, error) {
	req := lab.Request{Verb: "up", Up: &lab.UpRequest{Sizes: s.sizes(), Reflector: lab.Reflector(*s.reflector), Balancer: lab.Balancer(*s.balancer)}}
	_, err := lab.NewTopology(req.Up.Sizes, req.Up.Reflector, req.Up.Balancer)
	return req, err
}

func up(args []string) (int, error) {
	f := flagSet("up")
	sizes := sizeFlags(f)
	foreground := f.Bool("foreground", false, "stay, and end the lab on INT or TERM")
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	if f.NArg() > 0 {
		return statusUsage, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	req, err := sizes.request()
	if err != nil {
		return statusUsage, err
	}
	if conn, err := connect(); err == nil {
		conn.Close()
		return statusFault, errors.New("a lab is up already: end it with lab down")
	}
	if *foreground {
		return upForeground(req)
	}
	start := time.Now()
	if err := detach(args); err != nil {
		return statusFault, err
	}
	fmt.Printf("%6.2fs  machine booted\n", time.Since(start).Seconds())
	conn, err := connect()
	if err != nil {
		return statusFault, err
	}
	req.Elapsed = time.Since(start)
	code, err := ask(conn, req)
	if err != nil || code != 0 {
		if _, downErr := down(nil); downErr != nil {
			err = errors.Join(err, downErr)
		}
		return code, err
	}
	fmt.Printf("%6.2fs  the lab is up; lab status shows it, lab down ends it\n", time.Since(start).Seconds())
	return 0, nil
}

// upForeground is up and daemon in one process.
func upForeground(req lab.Request) (int, error) {
	ctx, stop := interruptible()
	defer stop()
	l, err := listen()
	if err != nil {
		return statusFault, err
	}
	defer l.Close()
	m, err := boot(ctx, req.Up.Sizes)
	if err != nil {
		return statusFault, err
	}
	defer m.Close()
	go relay(l, m)
	conn, err := m.Dial()
	if err != nil {
		return statusFault, err
	}
	code, err := lab.Do(ctx, conn, req, lab.Terminal{Out: os.Stdout, Err: os.Stderr})
	if err != nil || code != 0 {
		return code, err
	}
	code, err = m.Wait()
	if errors.Is(err, context.Canceled) {
		return 0, nil
	}
	return code, err
}

func down(args []string) (int, error) {
	if len(args) > 0 {
		return statusUsage, fmt.Errorf("unexpected argument %q", args[0])
	}
	conn, err := connect()
	if errors.Is(err, errNoLab) {
		fmt.Println("no lab is up")
		return 0, nil
	}
	if err != nil {
		return statusFault, err
	}
	if code, err := ask(conn, lab.Request{Verb: "down"}); err != nil {
		return code, err
	}
	for deadline := time.Now().Add(downTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		conn, err := connect()
		if errors.Is(err, errNoLab) {
			return 0, nil
		}
		if err == nil {
			conn.Close()
		}
	}
	return statusFault, fmt.Errorf("the lab is still there after %v", downTimeout)
}

// private boots a machine for one request, brings a lab up in it and sends
// the request, whose answer goes to answer.
func private(upReq, req lab.Request, progress, answer io.Writer) (int, error) {
	ctx, stop := interruptible()
	defer stop()
	start := time.Now()
	m, err := boot(ctx, upReq.Up.Sizes)
	if err != nil {
		return statusFault, err
	}
	defer m.Close()
	fmt.Fprintf(progress, "%6.2fs  machine booted (%v)\n", time.Since(start).Seconds(), m.Kind())
	for _, r := range []lab.Request{upReq, req} {
		conn, err := m.Dial()
		if err != nil {
			return statusFault, err
		}
		r.Elapsed = time.Since(start)
		out := answer
		if r.Verb == "up" {
			out = progress
		}
		if code, err := lab.Do(ctx, conn, r, lab.Terminal{Out: out, Err: os.Stderr}); err != nil || code != 0 {
			return code, err
		}
	}
	return 0, nil
}
