package daemon

import (
	"fmt"
	"net/netip"
	"time"

	"lb4d/bfd"
	"lb4d/config"
	"lb4d/control"
)

// waysOf are the peers whose ways the configuration has watched.
func waysOf(cfg *config.Config) []bfd.Peer {
	var peers []bfd.Peer
	for _, p := range cfg.BGP.Peers {
		if p.BFD == nil {
			continue
		}
		peers = append(peers, bfd.Peer{
			Name: p.Name, Address: p.Address, Source: p.Source,
			Interval: p.BFD.Interval, Multiplier: p.BFD.Multiplier, Multihop: p.BFD.Multihop,
		})
	}
	return peers
}

// showWays completes the status of the peers that BFD watches.
func showWays(peers []control.Peer, ways []bfd.Status) {
	for _, w := range ways {
		for i := range peers {
			if peers[i].Address != w.Address.String() {
				continue
			}
			peers[i].BFD = &control.BFD{
				State: w.State.String(), Since: w.Since, Remote: w.Remote.String(),
				IntervalMillis: milliseconds(w.Interval), DetectionMillis: milliseconds(w.Detection),
				Failures: w.Failures, Flapping: w.Flapping, LastError: w.LastError,
			}
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// wayChanges tells of the peers whose BFD begins, ends or changes.
func wayChanges(old, new []bfd.Peer) []control.Change {
	before := map[netip.Addr]bfd.Peer{}
	for _, p := range old {
		before[p.Address] = p
	}
	words := func(p bfd.Peer) string {
		s := fmt.Sprintf("%s, multiplier %d", p.Interval, p.Multiplier)
		if p.Multihop {
			s += ", multihop"
		}
		return s
	}
	var changes []control.Change
	note := func(p bfd.Peer, change, reason string) {
		changes = append(changes, control.Change{What: fmt.Sprintf("BFD with %s (%s)", p.Name, p.Address), Change: change, Reason: reason})
	}
	for _, p := range new {
		was, known := before[p.Address]
		delete(before, p.Address)
		switch {
		case !known:
			note(p, "added", words(p))
		case words(was) != words(p):
			note(p, "changed", words(p)+", was "+words(was))
		}
	}
	for _, p := range old {
		if _, gone := before[p.Address]; gone {
			note(p, "removed", "the router may take that for a failure, unless BFD was taken from it first")
		}
	}
	return changes
}
