package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// awaitTable waits until the remote's table is as described.
func awaitTable(t *testing.T, r *remote, want ...string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		diff := cmp.Diff(want, r.table(t))
		return diff == "", "table of the peer (-want +got):\n" + diff
	})
}

func TestSet(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{r.peer("rr1")}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "rr1", stateEstablished)

	one, two, three := "198.51.100.1/32", "198.51.100.2/32", "203.0.113.0/24"
	steps := []struct {
		name    string
		set     []Route
		table   []string
		history []string
	}{
		{
			"announce", prefixes(one, two),
			[]string{one + " origin 0 path [] via 127.0.0.1 pref 100", two + " origin 0 path [] via 127.0.0.1 pref 100"},
			[]string{"+ " + one + " origin 0 path [] via 127.0.0.1 pref 100", "+ " + two + " origin 0 path [] via 127.0.0.1 pref 100"},
		},
		{
			"same again", prefixes(two, one),
			[]string{one + " origin 0 path [] via 127.0.0.1 pref 100", two + " origin 0 path [] via 127.0.0.1 pref 100"},
			nil,
		},
		{
			"replace one in place",
			[]Route{with(one, Attributes{Communities: []uint32{GracefulShutdown, 65000<<16 | 100}}), {Prefix: netip.MustParsePrefix(two)}},
			[]string{one + " origin 0 path [] via 127.0.0.1 pref 100 65000:100 65535:0", two + " origin 0 path [] via 127.0.0.1 pref 100"},
			[]string{"+ " + one + " origin 0 path [] via 127.0.0.1 pref 100 65000:100 65535:0"},
		},
		{
			"withdraw one, add one", prefixes(two, three),
			[]string{two + " origin 0 path [] via 127.0.0.1 pref 100", three + " origin 0 path [] via 127.0.0.1 pref 100"},
			[]string{"- " + one, "+ " + three + " origin 0 path [] via 127.0.0.1 pref 100"},
		},
		{"withdraw all", nil, nil, []string{"- " + two, "- " + three}},
	}
	for _, step := range steps {
		if err := s.Set(step.set); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		awaitTable(t, r, step.table...)
		var told []string
		eventually(t, func() (bool, string) { // the record lags behind the table
			told = append(told, r.history()...)
			return len(told) >= len(step.history), fmt.Sprintf("%s: the peer was told %q", step.name, told)
		})
		if diff := cmp.Diff(step.history, told); diff != "" {
			t.Errorf("%s: what the peer was told (-want +got):\n%s", step.name, diff)
		}
		if got := status(t, s, "rr1").Advertised; got != len(step.set) {
			t.Errorf("%s: %d routes advertised, want %d", step.name, got, len(step.set))
		}
	}
}

// What stands in the table counts, not what was set before.
func TestSetRepairsTheTable(t *testing.T) {
	s, _ := startSpeaker(t, Options{})
	want := prefixes("198.51.100.1/32", "198.51.100.2/32")
	if err := s.Set(want); err != nil {
		t.Fatal(err)
	}
	lost, stray := announcement{Route: want[0], hop: netip.IPv4Unspecified()},
		announcement{Route: prefixes("192.0.2.0/24")[0], hop: netip.IPv4Unspecified()}
	if err := s.withdraw([]announcement{lost}); err != nil {
		t.Fatal(err)
	}
	if err := s.add([]announcement{stray}); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Routes()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// A route of the other family needs an address, and the loopback has none that
// others could use.
func TestSetWithoutNextHop(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{r.peer("rr1")}); err != nil {
		t.Fatal(err)
	}
	err := s.Set(prefixes("198.51.100.1/32", "2001:db8::1/128", "2001:db8::2/128"))
	want := "announcing 2 IPv6 routes: no global IPv6 address on the interface towards 127.0.0.2 to be their next hop"
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
}

func TestSetExternal(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65010})
	s, _ := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPeers([]Peer{r.peer("tor1")}); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [65000] via 127.0.0.1")
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = Start(t.Context(), Options{AS: 65000, RouterID: netip.MustParseAddr("192.0.2.1"), ListenPort: port},
		slog.New(slog.DiscardHandler), func() {})
	want := fmt.Sprintf("listening on BGP port %d: address already in use; stop the other BGP daemon or set listen_port = 0", port)
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestStartInvalid(t *testing.T) {
	id := netip.MustParseAddr("192.0.2.1")
	for _, o := range []Options{
		{AS: 0, RouterID: id}, {AS: 65000}, {AS: 65000, RouterID: netip.MustParseAddr("::1")}, {AS: 65000, RouterID: id, ListenPort: 70000},
	} {
		if _, err := Start(t.Context(), o, slog.New(slog.DiscardHandler), func() {}); err == nil {
			t.Errorf("speaker started with %+v", o)
		}
	}
}

// many makes n host routes.
func many(n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		routes[i].Prefix = netip.PrefixFrom(a, 32)
	}
	return routes
}

// A peer's routes are not taken, and cost nothing to keep; its hold timer is
// served by them all the same.
func TestNothingIsLearnt(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65010})
	theirs := make([]*apiutil.Path, 0, 5000)
	for i, route := range many(cap(theirs)) {
		path, err := announcement{Route: route, hop: netip.MustParseAddr("192.0.2.7")}.path()
		if err != nil {
			t.Fatal(err)
		}
		path.Attrs = append(path.Attrs, bgp.NewPathAttributeCommunities([]uint32{uint32(i)}))
		theirs = append(theirs, path)
	}
	if _, err := r.AddPath(apiutil.AddPathRequest{Paths: theirs}); err != nil {
		t.Fatal(err)
	}
	s, _ := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPeers([]Peer{r.peer("tor1")}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "tor1", stateEstablished)
	eventually(t, func() (bool, string) {
		sent := uint64(0)
		if err := r.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) {
			sent = p.GetState().GetMessages().GetSent().GetUpdate()
		}); err != nil {
			t.Fatal(err)
		}
		return sent >= uint64(len(theirs)), fmt.Sprintf("the peer sent %d updates", sent)
	})
	if err := s.server.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) {
		for _, f := range p.GetAfiSafis() {
			if n := f.GetState().GetReceived(); n != 0 {
				t.Errorf("GoBGP keeps %d routes of the peer", n)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if routes, err := s.Routes(); err != nil || len(routes) != 1 {
		t.Errorf("%d routes, error %v", len(routes), err)
	}
	if p := status(t, s, "tor1"); p.State != stateEstablished {
		t.Errorf("session is %s: %s", p.State, p.LastError)
	}
}
