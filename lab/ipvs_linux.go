package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cloudflare/ipvs"
)

// Destination is one line of a host's IPVS table: where the flows of a service
// go.
type Destination struct {
	VIP    netip.AddrPort
	Member netip.AddrPort
	Tunnel bool
	Weight int
	// Active and Inactive count the flows in the host's table.
	Active, Inactive int
}

// IPVS reads a host's IPVS table as far as users' flows meet it, each service's destinations in the kernel's
// order. It asks over netlink: /proc/net/ip_vs, read in pieces, skips services
// where several network namespaces have some (ip_vs_info_array counts one's
// own, ip_vs_info_seq_next all).
func (l *Lab) IPVS(host string) ([]Destination, error) {
	p, err := l.place(host)
	if err != nil {
		return nil, err
	}
	var table []Destination
	err = p.do(func() (err error) {
		if p.ipvs == nil {
			if p.ipvs, err = ipvs.New(); err != nil {
				return err
			}
		}
		table, err = listIPVS(p.ipvs)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the IPVS table of %s: %w", host, err)
	}
	return table, nil
}

func listIPVS(c ipvs.Client) ([]Destination, error) {
	var all []Destination
	services, err := c.Services()
	if errors.Is(err, os.ErrNotExist) { // The client's word for an empty list.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if s.FWMark != 0 {
			continue // of a check: no flow of a user meets it
		}
		destinations, err := c.Destinations(s.Service)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, d := range destinations {
			all = append(all, Destination{
				VIP:      netip.AddrPortFrom(s.Address, s.Port),
				Member:   netip.AddrPortFrom(d.Address, d.Port),
				Tunnel:   d.FwdMethod == ipvs.Tunnel,
				Weight:   int(d.Weight),
				Active:   int(d.ActiveConnections),
				Inactive: int(d.InactiveConnections),
			})
		}
	}
	return all, nil
}
