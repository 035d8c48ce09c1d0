package l4

import (
	"fmt"
	"strings"
)

// text is a table in lines, so that a test's rows read like ipvsadm.
func text(table Table) string {
	var b strings.Builder
	for _, s := range table {
		fmt.Fprintf(&b, "%s %s\n", s.Key, scheduling(s.Scheduler, s.Flags))
		for _, d := range s.Destinations {
			fmt.Fprintf(&b, "  %s %s, %d+%d flows\n", d.AddrPort(), d.settings(), d.ActiveConns, d.InactiveConns)
		}
	}
	return b.String()
}
