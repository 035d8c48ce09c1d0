package l4

import (
	"net/netip"
	"os"
	"testing"

	"github.com/cloudflare/ipvs"
	"github.com/google/go-cmp/cmp"
)

// dumps answers each call of Services with the next of a list of dumps, and
// the last one from then on.
type dumps struct {
	services     [][]ipvs.ServiceExtended
	destinations []ipvs.DestinationExtended
	calls        int
	err          error
}

func (d *dumps) Services() ([]ipvs.ServiceExtended, error) {
	i := min(d.calls, len(d.services)-1)
	d.calls++
	if len(d.services[i]) == 0 && d.err == nil {
		return nil, os.ErrNotExist
	}
	return d.services[i], d.err
}

func (d *dumps) Destinations(ipvs.Service) ([]ipvs.DestinationExtended, error) {
	if len(d.destinations) == 0 {
		return nil, os.ErrNotExist
	}
	return d.destinations, nil
}

func dumped(vip string, port uint16) ipvs.ServiceExtended {
	s := service(Key{VIP: netip.MustParseAddr(vip), Port: port, Protocol: TCP})
	s.Scheduler, s.Flags = "mh", ipvs.Flags(MHPort)|ipvs.ServiceHashed
	return ipvs.ServiceExtended{Service: s}
}

func TestList(t *testing.T) {
	one, two := dumped("198.51.100.1", 80), dumped("2001:db8::1", 443)
	mark, sctp := dumped("198.51.100.1", 81), dumped("198.51.100.1", 82)
	mark.FWMark, mark.Address, mark.Port = 7, netip.Addr{}, 0
	mark6, foreign := mark, mark
	mark6.FWMark, mark6.Family = 9, ipvs.INET6
	foreign.FWMark = 10
	sctp.Protocol = ipvs.SCTP
	dest := ipvs.DestinationExtended{
		Destination: ipvs.Destination{
			Address: netip.MustParseAddr("192.0.2.139"), Port: 80, Family: ipvs.INET,
			FwdMethod: ipvs.Tunnel, Weight: 2, UpperThreshold: 9,
		},
		ActiveConnections: 3, InactiveConnections: 4,
	}
	gue := dest
	gue.Port, gue.TunnelType, gue.TunnelPort, gue.UpperThreshold = 81, ipvs.GUE, 6080, 0
	gue.TunnelFlags = ipvs.TunnelEncapRemoteChecksum
	gre := dest
	gre.Port, gre.TunnelType, gre.UpperThreshold, gre.Weight = 82, ipvs.GRE, 0, 0
	drained := gre
	drained.Port, drained.TunnelFlags = 83, ipvs.TunnelEncapChecksum
	drained.UpperThreshold, drained.LowerThreshold = note(2)
	leaving := gre
	leaving.Port = 84
	leaving.UpperThreshold, leaving.LowerThreshold = note(0)
	nat := dest
	nat.Port, nat.FwdMethod, nat.UpperThreshold = 85, ipvs.Masquerade, 0
	type services = []ipvs.ServiceExtended
	tests := []struct {
		name    string
		dumps   dumps
		marks   bool
		want    string
		wantErr string
		calls   int
	}{
		{name: "empty", dumps: dumps{services: []services{{}}}, calls: 2},
		{
			name: "only what Diff deals in",
			dumps: dumps{
				services:     []services{{two, mark, one, sctp}},
				destinations: []ipvs.DestinationExtended{dest},
			},
			want: "[2001:db8::1]:443/tcp scheduler mh flags mh-port\n" +
				"  192.0.2.139:80 weight 2 ipip limited, 3+4 flows\n" +
				"198.51.100.1:80/tcp scheduler mh flags mh-port\n" +
				"  192.0.2.139:80 weight 2 ipip limited, 3+4 flows\n",
			calls: 2,
		},
		{
			name: "the marks that were asked for",
			dumps: dumps{
				services: []services{{two, mark, one, mark6, foreign}},
			},
			marks: true,
			want: "fwmark 7 scheduler mh flags mh-port\n" +
				"fwmark 9 IPv6 scheduler mh flags mh-port\n",
			calls: 2,
		},
		{
			name: "encapsulations and notes",
			dumps: dumps{
				services:     []services{{one}},
				destinations: []ipvs.DestinationExtended{gue, gre, drained, leaving, nat},
			},
			want: "198.51.100.1:80/tcp scheduler mh flags mh-port\n" +
				"  192.0.2.139:81 weight 2 gue port 6080 checksummed, 3+4 flows\n" +
				"  192.0.2.139:82 weight 0 of ? gre, 3+4 flows\n" +
				"  192.0.2.139:83 weight 0 of 2 gre checksummed, 3+4 flows\n" +
				"  192.0.2.139:84 weight 0 of 0 gre, 3+4 flows\n" +
				"  192.0.2.139:85 weight 2 no tunnel, 3+4 flows\n",
			calls: 2,
		},
		{
			name:  "changed in between",
			dumps: dumps{services: []services{{one, two}, {one}}},
			want:  "198.51.100.1:80/tcp scheduler mh flags mh-port\n",
			calls: 4,
		},
		{
			name:  "one service twice in a dump",
			dumps: dumps{services: []services{{one, two, one}, {one}}},
			want:  "198.51.100.1:80/tcp scheduler mh flags mh-port\n",
			calls: 3,
		},
		{
			name:    "one destination twice, each time",
			dumps:   dumps{services: []services{{one}}, destinations: []ipvs.DestinationExtended{dest, dest}},
			wantErr: "listing IPVS: the table changed while it was read, 5 times; does another program write to IPVS?",
			calls:   5,
		},
		{
			name:    "refused",
			dumps:   dumps{services: []services{{}}, err: os.ErrPermission},
			wantErr: "listing IPVS: not permitted; run as root, or with CAP_NET_ADMIN of the host (that of a container's user namespace does not count): permission denied",
			calls:   1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &Kernel{lister: &tt.dumps}
			list := k.List
			if tt.marks {
				list = func() (Table, error) { return k.ListMarks(7, 9) }
			}
			table, err := list()
			if diff := cmp.Diff(tt.wantErr, message(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, text(table)); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
			if tt.dumps.calls != tt.calls {
				t.Errorf("%d dumps of services, want %d", tt.dumps.calls, tt.calls)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
