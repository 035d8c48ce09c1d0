package daemon

import (
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
