package bgp

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Why a session is stopped, besides a change of its configuration.
var (
	errShutdown = errors.New("shutting down")
	errRemoved  = errors.New("peer removed")
)

// mustRestart tells what of a change cannot be made while the session is up;
// nil where all of it can.
func (p Peer) mustRestart(to Peer) error {
	var changed []string
	note := func(what string, differs bool) {
		if differs {
			changed = append(changed, what)
		}
	}
	note("AS", p.AS != to.AS)
	note("hold time", p.HoldTime != to.HoldTime)
	note("password", p.Password != to.Password)
	if changed == nil {
		return nil
	}
	return fmt.Errorf("configuration changed: %s", strings.Join(changed, ", "))
}

// equal compares all of two peers.
func (p Peer) equal(q Peer) bool { return reflect.DeepEqual(p, q) }
