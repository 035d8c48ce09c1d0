// Package service is what the daemons owe to the service manager: a log that
// journald can take, and the messages of sd_notify(3) that need more than a
// word.
package service

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// Reloading is the message that a reload has begun. The service manager wants
// the time with it, so that it can tell the READY=1 that ends this reload from
// an earlier one, sd_notify(3).
func Reloading() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", ts.Nano()/1000)
}

// Logger writes key=value lines, without the time under journald, which has
// its own.
func Logger(w io.Writer, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if underJournal, _ := journal.StderrIsJournalStream(); underJournal {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
