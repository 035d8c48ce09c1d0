package runtime

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Stat is what "show stat" tells of one server or, where Server is empty, of
// its back end as a whole.
type Stat struct {
	Backend string
	Server  string
	// Sessions are those going on, Queued those waiting for a place.
	Sessions, Queued int
	// SessionsTotal counts since HAProxy started or the counters were
	// cleared.
	SessionsTotal uint64
	// Status in HAProxy's words: "UP", "DOWN 1/2", "DRAIN (agent)", "MAINT",
	// "no check".
	Status string
	// Weight is the effective one, slowstart included.
	Weight int
	// CheckStatus is the last health check's result: "L7OK", "L4CON", "INI";
	// a "* " in front, of one that is running, is taken off. AgentStatus is
	// the agent check's.
	CheckStatus, AgentStatus string
	// LastCheck and LastAgent are the contents or the error of the last
	// check; they may hold what a server sent, so they are cut to 200 bytes
	// of printable ASCII.
	LastCheck, LastAgent string
	// SinceChange is seconds since the server last went up or down.
	SinceChange int
}

// ShowStat lists one back end: its servers in order, then itself. An unknown
// back end is ErrNotFound.
func (c *Client) ShowStat(ctx context.Context, backend string) ([]Stat, error) {
	if err := name("back end", backend); err != nil {
		return nil, err
	}
	// 6: back ends (2) and servers (4), not front ends of the same name.
	stats, err := c.showStat(ctx, backend, "6", "-1")
	if err == nil && len(stats) == 0 {
		cmd, _ := command(nil, "show", "stat", backend, "6", "-1")
		err = cmd.refused(-1, "No such backend")
	}
	return stats, err
}

// ShowFrontends lists the front ends, in HAProxy's order; Backend is the front
// end's name then. Its own sockets are none of them.
func (c *Client) ShowFrontends(ctx context.Context) ([]Stat, error) {
	return c.showStat(ctx, "-1", "1", "-1")
}

// showStat sends "show stat" with the selection given.
func (c *Client) showStat(ctx context.Context, selection ...string) ([]Stat, error) {
	cmd, err := command(nil, append([]string{"show", "stat"}, selection...)...)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	err = c.list(ctx, cmd, func(line string) error {
		text.WriteString(line)
		text.WriteByte('\n')
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(text.String(), "# ") {
		return nil, cmd.refused(cutSeverity(text.String()))
	}
	stats, err := parseStat(text.String())
	if err != nil {
		return nil, fmt.Errorf("reading the reply to %q: %w", cmd, err)
	}
	return stats, nil
}

// parseStat reads the CSV form by the names in its first line, since columns
// are added to the end, and the order beyond them is not promised.
func parseStat(text string) ([]Stat, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# ")))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for i, h := range head {
		at[h] = i
	}
	for _, h := range []string{"pxname", "svname", "scur", "qcur", "status", "weight", "check_status"} {
		if _, ok := at[h]; !ok {
			return nil, fmt.Errorf("no column %q", h)
		}
	}
	var stats []Stat
	for {
		row, err := r.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return stats, nil
			}
			return nil, err
		}
		get := func(column string) string {
			if i, ok := at[column]; ok && i < len(row) {
				return row[i]
			}
			return ""
		}
		// An empty field is a number that does not apply: 0 serves.
		number := func(column string) int { n, _ := strconv.Atoi(get(column)); return n }
		s := Stat{
			Backend:     get("pxname"),
			Server:      get("svname"),
			Sessions:    number("scur"),
			Queued:      number("qcur"),
			Status:      get("status"),
			Weight:      number("weight"),
			CheckStatus: strings.TrimPrefix(get("check_status"), "* "),
			AgentStatus: strings.TrimPrefix(get("agent_status"), "* "),
			LastCheck:   printable(get("last_chk")),
			LastAgent:   printable(get("last_agt")),
			SinceChange: number("lastchg"),
		}
		s.SessionsTotal, _ = strconv.ParseUint(get("stot"), 10, 64)
		if s.Server == "BACKEND" {
			s.Server = ""
		}
		stats = append(stats, s)
	}
}

// printable keeps what may be shown of a text from elsewhere.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if len(s) > 200 {
		s = s[:200]
	}
	return s
}
