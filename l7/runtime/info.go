package runtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Info tells which HAProxy process answers.
type Info struct {
	PID int
	// Uptime in whole seconds. With PID it tells one process from the next,
	// even in a container where each has the same number.
	Uptime  time.Duration
	Version string
	// Stopping tells that the process serves out its last connections.
	Stopping bool
}

// ShowInfo asks the process about itself.
func (c *Client) ShowInfo(ctx context.Context) (Info, error) {
	cmd, err := command(nil, "show", "info")
	if err != nil {
		return Info{}, err
	}
	var info Info
	var reply string
	seen := false
	err = c.list(ctx, cmd, func(line string) error {
		if reply == "" {
			reply = line
		}
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "Version":
			info.Version = value
		case "Stopping":
			info.Stopping = value != "0"
		case "Pid":
			info.PID, err = strconv.Atoi(value)
			seen = true
		case "Uptime_sec":
			var n int
			n, err = strconv.Atoi(value)
			info.Uptime = time.Duration(n) * time.Second
		}
		if err != nil {
			return fmt.Errorf("reading the reply to %q: %s: %w", cmd, key, err)
		}
		return nil
	})
	if err == nil && !seen {
		err = cmd.refused(cutSeverity(reply))
	}
	return info, err
}

// ShowBackends lists the names of the back ends, in HAProxy's order. Its own
// ones, whose names cannot be written in a configuration, are left out.
func (c *Client) ShowBackends(ctx context.Context) ([]string, error) {
	cmd, err := command(nil, "show", "backend")
	if err != nil {
		return nil, err
	}
	var names []string
	head := false
	err = c.list(ctx, cmd, func(line string) error {
		switch {
		case line == "":
		case !head && line == "# name":
			head = true
		case !head:
			return cmd.refused(cutSeverity(line))
		case name("back end", line) == nil:
			names = append(names, line)
		}
		return nil
	})
	if err == nil && !head {
		err = cmd.refused(-1, "")
	}
	return names, err
}
