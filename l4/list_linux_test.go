package l4

import (
	"errors"
	"net/netip"
	"os"
	"strings"
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
	addr := netip.MustParseAddr(vip)
	s := service(Key{VIP: addr, Port: port, Protocol: TCP}, "mh", MHPort)
	s.Flags |= ipvs.ServiceHashed
	return ipvs.ServiceExtended{Service: s}
}

func TestList(t *testing.T) {
	one, two := dumped("198.51.100.1", 80), dumped("2001:db8::1", 443)
	mark, sctp := dumped("198.51.100.1", 81), dumped("198.51.100.1", 82)
	mark.FWMark, mark.Address, mark.Port = 7, netip.Addr{}, 0
	sctp.Protocol = ipvs.SCTP
	dest := ipvs.DestinationExtended{
		Destination: ipvs.Destination{
			Address: netip.MustParseAddr("192.0.2.139"), Port: 80, Family: ipvs.INET,
			FwdMethod: ipvs.Tunnel, Weight: 2, UpperThreshold: 9,
		},
		ActiveConnections: 3, InactiveConnections: 4,
	}
	gue := dest
	gue.Port, gue.TunnelType, gue.UpperThreshold = 81, ipvs.GUE, 0
	type services = []ipvs.ServiceExtended
	tests := []struct {
		name    string
		dumps   dumps
		want    string
		wantErr string
		calls   int
	}{
		{name: "empty", dumps: dumps{services: []services{{}}}, calls: 2},
		{
			name: "only what Diff deals in",
			dumps: dumps{
				services:     []services{{two, mark, one, sctp}},
				destinations: []ipvs.DestinationExtended{dest, gue},
			},
			want: "[2001:db8::1]:443/tcp scheduler mh flags mh-port\n" +
				"  192.0.2.139:80 weight 2 tunnel limited, 3+4 flows\n" +
				"  192.0.2.139:81 weight 2 no ipip tunnel, 3+4 flows\n" +
				"198.51.100.1:80/tcp scheduler mh flags mh-port\n" +
				"  192.0.2.139:80 weight 2 tunnel limited, 3+4 flows\n" +
				"  192.0.2.139:81 weight 2 no ipip tunnel, 3+4 flows\n",
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
			wantErr: "the table changed while it was read, 5 times; does another program write to IPVS?",
			calls:   5,
		},
		{
			name:    "refused",
			dumps:   dumps{services: []services{{}}, err: os.ErrPermission},
			wantErr: "not permitted; run as root, or with CAP_NET_ADMIN of the host (that of a container's user namespace does not count): permission denied",
			calls:   1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := list(&tt.dumps)
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

// refuser fails every write to a service with one error.
type refuser struct {
	ipvs.Client
	err    error
	writes int
}

func (r *refuser) CreateService(ipvs.Service) error { r.writes++; return r.err }
func (r *refuser) RemoveService(ipvs.Service) error { r.writes++; return r.err }
func (r *refuser) CreateDestination(ipvs.Service, ipvs.Destination) error {
	r.writes++
	return r.err
}

func TestApplyStopsWithoutPermission(t *testing.T) {
	r := &refuser{err: os.ErrPermission}
	applied, err := (&Kernel{client: r}).Apply(Diff(Table{www6()}, Table{www(up("192.0.2.139", 1), up("192.0.2.140", 1))}))
	if applied != 0 || r.writes != 1 || !errors.Is(err, os.ErrPermission) {
		t.Errorf("applied %d with %d writes and error %v; want one write that is refused", applied, r.writes, err)
	}
}

func TestApplyBoundsItsError(t *testing.T) {
	r := &refuser{err: errors.New("out of luck")}
	var ops []Op
	for range 1000 {
		ops = append(ops, DeleteService{Key: www().Key})
	}
	applied, err := (&Kernel{client: r}).Apply(ops)
	if applied != 0 || r.writes != 1000 {
		t.Errorf("applied %d with %d writes, want 1000 that fail", applied, r.writes)
	}
	if lines := strings.Split(message(err), "\n"); len(lines) != 21 || lines[20] != "and 980 operations more that failed" {
		t.Errorf("error has %d lines, the last one is %q", len(lines), lines[len(lines)-1])
	}
}
