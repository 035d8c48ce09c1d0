package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"reflect"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// gobgp is the embedded server with a way to hand it connections.
type gobgp struct {
	*server.BgpServer
	// connections takes connections to peers that AddPeer has named.
	connections chan<- net.Conn
}

// startGoBGP starts a server that opens nothing by itself: no port, no gRPC.
func startGoBGP(ctx context.Context, o Options, log *slog.Logger) (*gobgp, error) {
	s := server.NewBgpServer(server.LoggerOption(slog.New(quiet{log.Handler()}), nil))
	connections, err := acceptChannel(s)
	if err != nil {
		return nil, err
	}
	go s.Serve()
	g := &gobgp{BgpServer: s, connections: connections}
	err = g.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:        o.AS,
		RouterId:   o.RouterID.String(),
		ListenPort: -1, // 0 would mean 179
		Families:   tables,
	}})
	if err == nil {
		err = g.setPolicies(ctx, o.AS, nil)
	}
	if err == nil {
		err = g.assignPolicies(ctx)
	}
	if err != nil {
		g.Stop()
		return nil, fmt.Errorf("starting GoBGP: %w", err)
	}
	return g, nil
}

// acceptChannel gives a server that does not serve yet the channel on which
// its listener would pass on what it accepted, and returns it.
//
// The field is not exported. To reach it all the same is what lets this
// package dial at once and see what a peer answers (see the package comment),
// and GoBGP has no other way to take a connection. It treats what comes here
// as any accepted connection, and looks the peer up by the remote address.
// Should a later GoBGP rename the field, the start fails, and so do the tests.
func acceptChannel(s *server.BgpServer) (chan<- net.Conn, error) {
	field := reflect.ValueOf(s).Elem().FieldByName("acceptCh")
	if !field.IsValid() || field.Type() != reflect.TypeFor[chan net.Conn]() {
		return nil, fmt.Errorf("handing connections to GoBGP: this version of it has no acceptCh of type chan net.Conn")
	}
	ch := make(chan net.Conn)
	*(*chan net.Conn)(field.Addr().UnsafePointer()) = ch
	return ch, nil
}

// The two address families of every session, as GoBGP's API, its packets and
// its start name them.
var (
	ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	ipv6Unicast = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
	families    = []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}
	// tables, left out, would be all families, whose empty tables take 10 MB.
	tables = []uint32{
		uint32(oc.AfiSafiTypeToIntMap[oc.AFI_SAFI_TYPE_IPV4_UNICAST]),
		uint32(oc.AfiSafiTypeToIntMap[oc.AFI_SAFI_TYPE_IPV6_UNICAST]),
	}
)

// quiet hands GoBGP's records on as debug records. What an operator needs to
// know of them this package says itself, once.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	r.Message = "gobgp: " + r.Message
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quiet{q.Handler.WithAttrs(attrs)}
}

func (q quiet) WithGroup(name string) slog.Handler {
	return quiet{q.Handler.WithGroup(name)}
}
