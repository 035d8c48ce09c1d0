package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// watchInterval is how often --watch asks. The daemon makes a pass at least
// every second.
const watchInterval = time.Second

// format is the value of --output.
type format string

const (
	formatText format = "text"
	formatJSON format = "json"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func (f *format) Set(s string) error {
	switch format(s) {
	case formatText, formatJSON:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("must be text or json")
}

// statusCommand shows all that lb4d tells of itself.
func statusCommand(client, lb7 func() *control.Client, present func() daemons) *cobra.Command {
	output, watch, ofLB7 := formatText, false, false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show VIPs, services, members and peers; on an LB7 host, servers and their slots",
		Long: `Show which VIPs are announced and which are not and why, which services
forward, how the members of the pools answer their checks, and the BGP sessions.

On a host that runs lb7d and no lb4d, and with --lb7, it shows lb7d's: the agent
check, HAProxy, the slot records and which server has which slot.

The exit status says whether lb4d answered, not what: it is 0 as well while
every VIP is withdrawn. For a verdict ask its /healthz, or take -o json, where
"errors" lists what failed in the last pass and "config" has the "error" of a
reload that was refused.`,
		Example: `  lbctl status
  lbctl status --watch
  lbctl status -o json | jq -r '.vips[] | select(.announced | not) | .reason'`,
		Args:              arguments(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := shower{client: client(), out: cmd.OutOrStdout(), format: output}
			switch here := present(); {
			case ofLB7, here.lb7 && !here.lb4:
				s.client = lb7()
			case output == formatText && !watch && here.hint() != "":
				defer fmt.Fprintln(cmd.ErrOrStderr(), "lbctl:", here.hint())
			}
			if watch {
				return s.watch(cmd.Context(), cmd.ErrOrStderr())
			}
			s.terminal = terminalOf(s.out)
			page, err := s.page(cmd.Context())
			if err != nil {
				return err
			}
			return s.write(page)
		},
	}
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&ofLB7, "lb7", false, "that of lb7d, also where lb4d runs too")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again each second until interrupted; with -o json one line each")
	return cmd
}

// outputFlag is --output of a verb.
func outputFlag(cmd *cobra.Command, output *format) {
	cmd.Flags().VarP(output, "output", "o", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// shower shows the status in one format.
type shower struct {
	client   *control.Client
	out      io.Writer
	format   format
	terminal terminal
	compact  bool // JSON on one line
}

// page asks once and is what to show for the answer.
func (s *shower) page(ctx context.Context) (string, error) {
	if s.format == formatJSON {
		raw, err := s.client.RawStatus(ctx)
		if err != nil {
			return "", err
		}
		return formatted(raw, s.compact)
	}
	raw, err := s.client.RawStatus(ctx)
	if err != nil {
		return "", err
	}
	if program(raw) == "lb7d" {
		var st control.LB7Status
		if err := json.Unmarshal(raw, &st); err != nil {
			return "", fmt.Errorf("reading the status of lb7d: %w: are lbctl and lb7d of the same version? (lbctl version)", err)
		}
		return renderLB7(&st, time.Now(), s.terminal), nil
	}
	st, err := s.client.Status(ctx)
	if err != nil {
		return "", err
	}
	return render(st, time.Now(), s.terminal), nil
}

func (s *shower) write(page string) error {
	if _, err := io.WriteString(s.out, page); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// watch shows the status until ctx ends. It stays when lb4d does not answer:
// that is when people watch.
func (s *shower) watch(ctx context.Context, stderr io.Writer) error {
	s.compact = true
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		s.terminal = terminalOf(s.out) // it may have been resized
		page, err := s.page(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil && s.terminal.is && s.format == formatText:
			page = fmt.Sprintf("%s  lbctl: %s\n", time.Now().Format(time.TimeOnly), printable(err.Error()))
		case err != nil:
			page = ""
			fmt.Fprintf(stderr, "lbctl: %s\n", printable(err.Error()))
		case !s.terminal.is && s.format == formatText:
			page += "\n"
		}
		if s.terminal.is && s.format == formatText {
			page = s.terminal.over(page, first)
		}
		if err := s.write(page); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// formatted is raw, valid JSON, indented or on one line. JSON escapes only the
// control characters of ASCII's first column; a terminal obeys others too.
func formatted(raw []byte, compact bool) (string, error) {
	var b bytes.Buffer
	var err error
	if compact {
		err = json.Compact(&b, raw)
	} else {
		err = json.Indent(&b, bytes.TrimSpace(raw), "", "  ")
	}
	if err != nil {
		return "", fmt.Errorf("formatting the status: %w", err)
	}
	var out strings.Builder
	for _, r := range b.String() {
		// Outside of its strings JSON has none of these; inside, \u is an
		// escape.
		if r > unicode.MaxASCII && !unicode.IsPrint(r) || r == 0x7f {
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&out, `\u%04x`, unit)
			}
			continue
		}
		out.WriteRune(r)
	}
	out.WriteByte('\n')
	return out.String(), nil
}
