package bgp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

const patience = 30 * time.Second

// eventually waits until what is so, and fails the test with what it says
// otherwise.
func eventually(t *testing.T, what func() (ok bool, detail string)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 50*time.Millisecond) {
		ok, detail := what()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, detail)
		}
		time.Sleep(pause)
	}
}

// remote is a peer for the speaker under test: a GoBGP of its own on a
// loopback address, which accepts calls from 127.0.0.1 and records every change
// of its table.
type remote struct {
	*server.BgpServer
	as      uint32
	address netip.Addr
	port    int

	mu  sync.Mutex
	log []string
}

type remoteOptions struct {
	as        uint32
	callerAS  uint32 // what it expects of the speaker; 65000 where 0
	caller    string // where it expects calls from; 127.0.0.1 or ::1 where empty
	password  string
	transport *api.Transport
}

// freePort is a TCP port that was free a moment ago.
func freePort(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startRemote(t *testing.T, address string, o remoteOptions) *remote {
	t.Helper()
	return startRemoteAt(t, address, freePort(t, address), o)
}

func startRemoteAt(t *testing.T, address string, port int, o remoteOptions) *remote {
	t.Helper()
	if o.callerAS == 0 {
		o.callerAS = 65000
	}
	r := &remote{
		BgpServer: server.NewBgpServer(server.LoggerOption(slog.New(slog.DiscardHandler), nil)),
		as:        o.as,
		address:   netip.MustParseAddr(address),
		port:      port,
	}
	go r.Serve()
	ctx := context.Background()
	routerID := address
	if r.address.Is6() {
		routerID = "198.51.100.99"
	}
	if err := r.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: o.as, RouterId: routerID, ListenPort: int32(port), ListenAddresses: []string{address}, Families: tables,
	}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	if err := r.WatchEvent(ctx, server.WatchEventMessageCallbacks{OnBestPath: r.record}, server.WatchBestPath(true)); err != nil {
		t.Fatal(err)
	}
	caller := "127.0.0.1"
	if r.address.Is6() {
		caller = "::1"
	}
	if o.caller != "" {
		caller = o.caller
	}
	transport := o.transport
	if transport == nil {
		transport = &api.Transport{PassiveMode: true}
	}
	family := func(f *api.Family) *api.AfiSafi {
		return &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f, Enabled: true}}
	}
	if err := r.AddPeer(ctx, &api.AddPeerRequest{Peer: &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: caller, PeerAsn: o.callerAS, AuthPassword: o.password},
		Transport: transport,
		AfiSafis:  []*api.AfiSafi{family(ipv4Unicast), family(ipv6Unicast)},
	}}); err != nil {
		t.Fatal(err)
	}
	return r
}

// record notes changes of the table: "+" for a route that came or changed,
// "-" for one that went.
func (r *remote) record(paths []*apiutil.Path, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range paths {
		if p.Withdrawal {
			r.log = append(r.log, "- "+p.Nlri.String())
		} else {
			r.log = append(r.log, "+ "+describe(p))
		}
	}
}

// history is what the table went through since it was last asked.
func (r *remote) history() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.log
	r.log = nil
	return h
}

// awaitHistory waits until the remote has been through so many changes, and
// compares them. What comes late is the next one's.
func awaitHistory(t *testing.T, r *remote, want ...string) {
	t.Helper()
	var told []string
	eventually(t, func() (bool, string) {
		told = append(told, r.history()...)
		return len(told) >= len(want), fmt.Sprintf("the peer was told %q", told)
	})
	slices.Sort(told)
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("what the peer was told (-want +got):\n%s", diff)
	}
}

// describe is a path as one line.
func describe(p *apiutil.Path) string {
	var s strings.Builder
	s.WriteString(p.Nlri.String())
	for _, attr := range p.Attrs {
		switch v := attr.(type) {
		case *bgp.PathAttributeOrigin:
			fmt.Fprintf(&s, " origin %d", v.Value)
		case *bgp.PathAttributeAsPath:
			fmt.Fprintf(&s, " path [%s]", bgp.AsPathString(v))
		case *bgp.PathAttributeNextHop:
			fmt.Fprintf(&s, " via %s", v.Value)
		case *bgp.PathAttributeMpReachNLRI:
			fmt.Fprintf(&s, " via %s", v.Nexthop)
		case *bgp.PathAttributeLocalPref:
			fmt.Fprintf(&s, " pref %d", v.Value)
		case *bgp.PathAttributeMultiExitDisc:
			fmt.Fprintf(&s, " med %d", v.Value)
		case *bgp.PathAttributeCommunities:
			for _, c := range v.Value {
				fmt.Fprintf(&s, " %d:%d", c>>16, c&0xffff)
			}
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				fmt.Fprintf(&s, " %s", c)
			}
		default:
			fmt.Fprintf(&s, " %s", v.GetType())
		}
	}
	return s.String()
}

// table is what the remote holds, sorted.
func (r *remote) table(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, f := range families {
		if err := r.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f},
			func(_ bgp.NLRI, paths []*apiutil.Path) {
				for _, p := range paths {
					lines = append(lines, describe(p))
				}
			}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(lines)
	return lines
}

// count is the size of the remote's table.
func (r *remote) count(t *testing.T) int {
	t.Helper()
	n := 0
	for _, f := range []*api.Family{ipv4Unicast, ipv6Unicast} {
		table, err := r.GetTable(context.Background(), &api.GetTableRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f})
		if err != nil {
			t.Fatal(err)
		}
		n += int(table.GetNumDestination())
	}
	return n
}

// peer is the remote as the speaker is told of it.
func (r *remote) peer(name string) Peer {
	return Peer{Name: name, Address: r.address, Port: r.port, AS: r.as, HoldTime: 6 * time.Second}
}

// logbook is a log that a test reads.
type logbook struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

func (l *logbook) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Writer(l), &slog.HandlerOptions{Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
}

// startSpeaker starts the speaker under test, AS 65000.
func startSpeaker(t *testing.T, o Options) (*Speaker, *logbook) {
	t.Helper()
	if o.AS == 0 {
		o.AS = 65000
	}
	if !o.RouterID.IsValid() {
		o.RouterID = netip.MustParseAddr("192.0.2.132")
	}
	book := &logbook{}
	s, err := Start(t.Context(), o, book.logger(slog.LevelInfo), func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the speaker:\n%s", book)
		}
	})
	return s, book
}

// status is that of one peer.
func status(t *testing.T, s *Speaker, name string) PeerStatus {
	t.Helper()
	for _, p := range s.Peers() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no peer %s among %v", name, s.Peers())
	return PeerStatus{}
}

// awaitState waits until a peer is in a state.
func awaitState(t *testing.T, s *Speaker, name, state string) PeerStatus {
	t.Helper()
	var p PeerStatus
	eventually(t, func() (bool, string) {
		p = status(t, s, name)
		return p.State == state, fmt.Sprintf("peer %s in %s, want %s (%s)", name, p.State, state, p.LastError)
	})
	return p
}

func prefixes(all ...string) []Route {
	var routes []Route
	for _, p := range all {
		routes = append(routes, Route{Prefix: netip.MustParsePrefix(p)})
	}
	return routes
}

// with is a route with attributes of its own.
func with(prefix string, a Attributes) Route {
	return Route{Prefix: netip.MustParsePrefix(prefix), Attributes: a}
}

// draining is a route that is about to go.
func draining(prefix string) Route {
	return Route{Prefix: netip.MustParsePrefix(prefix), Draining: true}
}
