package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLast: who would be missed.
func TestLast(t *testing.T) {
	a, b, c, d, e := addr("198.51.100.1"), addr("198.51.100.2"), addr("198.51.100.3"), addr("198.51.100.4"), addr("198.51.100.5")
	vips := []VIP{{Addr: a, State: Announced}, {Addr: b, State: Announced}, {Addr: c, State: Announced}, {Addr: d, State: Draining}, {Addr: e, State: Announced}}
	sibling := func(draining bool) []Sibling { return []Sibling{{NextHop: addr("192.0.2.133"), Draining: draining}} }
	last, unsure := Last(vips, map[netip.Addr]Others{
		a: {Sure: true, Heard: true},                           // nobody else
		b: {Sure: true, Heard: true, Siblings: sibling(false)}, // somebody else
		c: {Sure: true, Heard: true, Siblings: sibling(true)},  // somebody who is about to go
		d: {Sure: true, Heard: true},                           // on its way out already
		e: {Heard: true},                                       // nobody knows
	})
	if diff := cmp.Diff("[198.51.100.1 198.51.100.3] [198.51.100.5]", fmt.Sprint(last, unsure)); diff != "" {
		t.Errorf("last and unsure (-want +got):\n%s", diff)
	}
}
