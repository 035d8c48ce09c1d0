package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Server is one line of "show servers state".
type Server struct {
	Backend string
	Name    string
	// ID is the number that the consistent hash knows the server by.
	ID int
	// Addr is invalid where HAProxy has none, for a name not resolved.
	Addr netip.AddrPort
	// State is the administrative one; inherited and unresolved maintenance
	// count as Maint.
	State State
	// Running tells that the server is up, or has no check to say otherwise.
	// A draining server can be running.
	Running bool
	// Weight is the one that was set; what slowstart makes of it is not seen
	// here. InitialWeight is the configuration's, of which an agent's
	// percentages are percentages.
	Weight, InitialWeight int
	// HasCheck tells that a health check is configured, running or not;
	// Checked, that one has ended since HAProxy started, on whatever address
	// the server had.
	HasCheck, Checked bool
	// HasAgent tells that an agent check is configured; Agent, that it is not
	// stopped.
	HasAgent, Agent bool
}

// Bits of the columns, from HAProxy's management guide, section 9.3.
const (
	adminMaint      = 0x01 | 0x02 | 0x20 // forced, inherited, unresolved
	adminDrain      = 0x08 | 0x10        // forced, inherited
	checkConfigured = 0x02
	checkEnabled    = 0x04
)

// Columns of "show servers state", format 1.
const (
	colBackend       = 1
	colID            = 2
	colName          = 3
	colAddr          = 4
	colOpState       = 5
	colAdminState    = 6
	colWeight        = 7
	colInitialWeight = 8
	colCheckResult   = 11
	colCheckState    = 13
	colAgentState    = 14
	colPort          = 18
	minColumns       = 19
)

// ShowServersState lists the servers of one back end, or of all where backend
// is empty, in HAProxy's order. An unknown back end is ErrNotFound.
func (c *Client) ShowServersState(ctx context.Context, backend string) ([]Server, error) {
	words := []string{"show", "servers", "state"}
	if backend != "" {
		if err := name("back end", backend); err != nil {
			return nil, err
		}
		words = append(words, backend)
	}
	cmd, err := command(nil, words...)
	if err != nil {
		return nil, err
	}
	var servers []Server
	n := 0
	err = c.list(ctx, cmd, func(line string) error {
		if line == "" {
			return nil
		}
		n++
		switch {
		case n == 1 && line != "1":
			return cmd.refused(cutSeverity(line))
		case n == 1 || strings.HasPrefix(line, "#"):
			return nil
		}
		s, err := parseServer(line)
		if err != nil {
			return fmt.Errorf("reading the reply to %q: %w", cmd, err)
		}
		servers = append(servers, s)
		return nil
	})
	if err == nil && n == 0 {
		err = cmd.refused(-1, "")
	}
	return servers, err
}

// parseServer reads one line of the listing.
func parseServer(line string) (Server, error) {
	col := strings.Fields(line)
	if len(col) < minColumns {
		return Server{}, fmt.Errorf("%d columns, want %d: %q", len(col), minColumns, clip(line))
	}
	s := Server{Backend: col[colBackend], Name: col[colName]}
	var errs []error
	number := func(i int) int {
		n, err := strconv.Atoi(col[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("column %d of %s/%s: %q is no number", i+1, clip(s.Backend), clip(s.Name), clip(col[i])))
		}
		return n
	}
	s.ID = number(colID)
	s.Running = number(colOpState) > 0
	s.Weight = number(colWeight)
	s.InitialWeight = number(colInitialWeight)
	switch admin := number(colAdminState); {
	case admin&adminMaint != 0:
		s.State = Maint
	case admin&adminDrain != 0:
		s.State = Drain
	default:
		s.State = Ready
	}
	s.Checked = number(colCheckResult) != 0
	s.HasCheck = number(colCheckState)&checkConfigured != 0
	agent := number(colAgentState)
	s.HasAgent = agent&checkConfigured != 0
	s.Agent = s.HasAgent && agent&checkEnabled != 0
	port := number(colPort)
	// A "-" stands for an address that HAProxy does not have.
	if ip, err := netip.ParseAddr(col[colAddr]); err == nil && port >= 0 && port <= 65535 {
		s.Addr = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return s, errors.Join(errs...)
}
