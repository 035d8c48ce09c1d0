package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"lb4d/agent"
)

// runAgent answers agent checks until ctx ends. A HUP does nothing, since there
// is nothing to read anew.
func runAgent(ctx context.Context, file, listen string, hup <-chan os.Signal, log *slog.Logger, notify func(string)) error {
	addresses, err := listenAddresses(listen)
	if err != nil {
		return err
	}
	s, err := agent.New(agent.Options{File: file, Listen: addresses}, log)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	log.Info("started", "version", version, "agent_check", file, "listen", listen, "answer", s.Status().Answer)
	notify("READY=1\nSTATUS=answering agent checks from " + file)
	for {
		select {
		case <-hup:
		case <-ctx.Done():
			notify("STOPPING=1")
			return nil
		}
	}
}

// listenAddresses reads addresses with commas between; :PORT is every address
// of both families.
func listenAddresses(list string) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		texts := []string{one}
		if strings.HasPrefix(one, ":") {
			texts = []string{"0.0.0.0" + one, "[::]" + one}
		}
		for _, text := range texts {
			a, err := netip.ParseAddrPort(text)
			if err != nil || a.Port() == 0 {
				return nil, fmt.Errorf("-listen %q is no address and port; write it as 127.0.0.1:5555, [::1]:5555 or :5555", one)
			}
			all = append(all, a)
		}
	}
	return all, nil
}
