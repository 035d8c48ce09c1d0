package daemon

import (
	"lb4d/bgp"
	"lb4d/config"
)

// peersOf are the sessions that the configuration asks for.
func peersOf(cfg *config.Config) []bgp.Peer {
	var peers []bgp.Peer
	for _, p := range cfg.BGP.Peers {
		var families bgp.Families
		if p.IPv4 {
			families |= bgp.IPv4
		}
		if p.IPv6 {
			families |= bgp.IPv6
		}
		peers = append(peers, bgp.Peer{
			Name: p.Name, Address: p.Address, Port: p.Port, AS: p.AS,
			Password: string(p.Password), HoldTime: p.HoldTime, GracefulRestart: p.GracefulRestart,
			Multihop: p.Multihop, TTLSecurity: p.TTLSecurity, Source: p.Source,
			Passive: p.Passive, Families: families, Siblings: p.Siblings, PrefixLimit: p.PrefixLimit,
			Attributes: bgp.Attributes(p.Attributes),
		})
	}
	return peers
}
