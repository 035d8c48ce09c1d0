package l4

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/cloudflare/ipvs"
)

// Received tells what has been counted on each of the VIPs that are ours, over
// all services on it. It costs one dump of the services, without their
// destinations.
//
// Where the table changes meanwhile, a service may be missing or be there twice
// (list); so a VIP's numbers may even go down for once.
func (k *Kernel) Received(ours func(netip.Addr) bool) (map[netip.Addr]Received, error) {
	services, err := k.lister.Services()
	// As in listServices.
	if err != nil && err != os.ErrNotExist { //nolint:errorlint // see listServices
		return nil, fmt.Errorf("reading the counters of IPVS: %w", explain(err))
	}
	all := map[netip.Addr]Received{}
	for _, s := range services {
		if s.FWMark == 0 && (s.Protocol == ipvs.TCP || s.Protocol == ipvs.UDP) && ours(s.Address) {
			all[s.Address] = all[s.Address].Add(received(s))
		}
	}
	return all, nil
}

// received is what a listed service has counted.
func received(s ipvs.ServiceExtended) Received {
	return Received{Flows: s.Stats64.Connections, Packets: s.Stats64.IncomingPackets, Bytes: s.Stats64.IncomingBytes}
}
