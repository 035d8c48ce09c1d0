package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lb4d/control"
)

// directoryCommand asks lb7d about its directories of hosts.
func directoryCommand(client func() *control.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "directory",
		Short: "Show where hosts are, by the directories of lb7d",
		Long: `Ask lb7d, on an LB7 host, about its directories: which back end serves which host,
as looked up at run time and kept in a HAProxy map.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(directoryShow(client), directoryLookup(client), directoryForget(client))
	return cmd
}

func directoryShow(client func() *control.Client) *cobra.Command {
	output := formatText
	cmd := &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show how a directory does, or all of them",
		Long: `Show how many hosts a directory knows, how old its answers are, what came of its
calls, and what somebody should look at. Hits are not counted here, because they
never leave HAProxy.`,
		Example: `  lbctl directory show
  lbctl directory show pods -o json | jq .counters`,
		Args:              arguments(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := client().LB7Status(cmd.Context())
			if err != nil {
				return err
			}
			found := []control.Directory{}
			var names []string
			for _, d := range st.Directories {
				names = append(names, d.Name)
				if len(args) == 0 || d.Name == args[0] {
					found = append(found, d)
				}
			}
			switch {
			case len(st.Directories) == 0:
				return fmt.Errorf("lb7d on %s has no directory: lb7d.toml has no [directory.NAME]", st.Host)
			case len(found) == 0:
				return fmt.Errorf("lb7d on %s has no directory %s; it has %s", st.Host, args[0], strings.Join(names, ", "))
			}
			return show(cmd.OutOrStdout(), output, found, func(p *page) {
				for i := range found {
					if i > 0 {
						p.b.WriteByte('\n')
					}
					p.directory(&found[i])
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func directoryLookup(client func() *control.Client) *cobra.Command {
	var r control.DirectoryRequest
	output := formatText
	cmd := &cobra.Command{
		Use:   "lookup HOST",
		Short: "Tell which back end serves a host",
		Long: `Tell which back end serves a host. Where lb7d does not know, it asks the directory
service, and keeps the answer as it would for a request.`,
		Example:           `  lbctl directory lookup www.example.org`,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Host = args[0]
			a, err := client().DirectoryLookup(cmd.Context(), r)
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), output, a, func(p *page) { p.lookedUp(a) }); err != nil {
				return err
			}
			if a.Backend == "" {
				return errors.New("no back end serves " + a.Host)
			}
			return nil
		},
	}
	directoryFlag(cmd, &r)
	outputFlag(cmd, &output)
	return cmd
}

func directoryForget(client func() *control.Client) *cobra.Command {
	var r control.DirectoryRequest
	output := formatText
	cmd := &cobra.Command{
		Use:   "forget HOST",
		Short: "Have a host looked up anew",
		Long: `Forget which back end serves a host, or that the directory service does not know it,
and take it out of HAProxy's map. The next request for it has it looked up anew. A
host that is not known is no fault.

Other LB7 hosts are not told: forget the host on each of them.`,
		Example:           `  lbctl directory forget www.example.org`,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Host = args[0]
			a, err := client().DirectoryForget(cmd.Context(), r)
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), output, a, func(p *page) {
				if a.Known {
					p.say(bold, "", a.Host+" is forgotten by directory "+a.Directory)
				} else {
					p.say(bold, "", a.Host+" was not known to directory "+a.Directory)
				}
			}); err != nil {
				return err
			}
			if a.Error != "" {
				return errors.New("HAProxy's map may still have the host: " + a.Error)
			}
			return nil
		},
	}
	directoryFlag(cmd, &r)
	outputFlag(cmd, &output)
	return cmd
}

func directoryFlag(cmd *cobra.Command, r *control.DirectoryRequest) {
	cmd.Flags().StringVarP(&r.Directory, "directory", "d", "", "its `name`, where lb7d has several")
}

// lookedUp is where a host is.
func (p *page) lookedUp(a *control.DirectoryAnswer) {
	if a.Backend == "" {
		p.say(red, a.Host, a.Error)
		return
	}
	from := map[string]string{
		"directory": "the directory service's answer", "bulk": "from the list of all hosts", "map": "found in the map when lb7d started",
	}[a.Source]
	line := fmt.Sprintf("is in %s: %s, %s ago", a.Backend, from, p.since(a.Asked))
	if !a.Cached {
		line += ", not known before"
	}
	p.say(bold, a.Host, line)
	if a.Stale {
		p.say(yellow, "STALE", fmt.Sprintf("the answer is old since %s ago, and serves on until there is another", p.since(a.Expires)))
	}
}

// directory is one of them: what is wrong first, then numbers.
func (p *page) directory(d *control.Directory) {
	colour := bold
	if d.State != "serving" {
		colour = yellow
	}
	p.say(colour, d.Name, fmt.Sprintf("%s; %d of at most %d hosts, %d in HAProxy's map %s", d.State, d.Hosts, d.Max, d.InMap, d.Map))
	for _, problem := range d.Problems {
		p.say(red, "PROBLEM", problem)
	}
	if d.Wrong != "" {
		p.say(yellow, "WRONG ANSWER", fmt.Sprintf("%s ago: %s", p.since(d.WrongAt), d.Wrong))
	}
	c := &d.Counters
	t := table{header: []string{"WHAT", "NOW", ""}}
	row := func(what string, n uint64, sentence string) {
		t.add(text(what), number(strconv.FormatUint(n, 10)), text(sentence))
	}
	answers := "none yet"
	if !d.AnsweredAt.IsZero() {
		answers = "the latest " + p.since(d.AnsweredAt) + " ago"
	}
	oldest := ""
	if !d.Oldest.IsZero() {
		oldest = "the oldest answer is of " + p.since(d.Oldest) + " ago"
	}
	row("stale", uint64(d.Stale), oldest)
	row("unknown", uint64(d.Unknown), "hosts that the directory service does not know")
	row("asking", uint64(d.Asking), "hosts that wait for an answer")
	row("open", uint64(d.Open), "requests that pass through lb7d")
	row("misses", c.Misses, fmt.Sprintf("%d known, %d shared a call, %d with no host's name", c.Known, c.Shared, c.Refused))
	row("calls", c.Calls, answers+took(c))
	row("answers", c.Answered, fmt.Sprintf("besides %d unknown, %d wrong, %d failed, %d not asked for", c.Unknown, c.Wrong, c.Failed, c.Busy))
	if c.Bulk > 0 {
		row("lists", c.Bulk, fmt.Sprintf("%d failed; the latest good one %s ago", c.BulkFailed, p.since(d.BulkAt)))
	}
	row("let go", c.Evicted+c.Expired, fmt.Sprintf("%d to make room, %d no longer used", c.Evicted, c.Expired))
	row("map", c.Written, fmt.Sprintf("lines changed, %d of them found wrong; the file was written %d times", c.Mended, c.FileWrites))
	row("turned away", c.Shed+c.ForwardFailed, fmt.Sprintf("%d too many at once, %d not taken back by HAProxy", c.Shed, c.ForwardFailed))
	p.table("numbers", t)
}

// took is the mean time of a call.
func took(c *control.DirectoryCounters) string {
	if c.Calls == 0 {
		return ""
	}
	return fmt.Sprintf(", %.1f ms on average", 1000*c.Seconds/float64(c.Calls))
}
