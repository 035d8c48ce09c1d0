package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
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
			[]Route{{netip.MustParsePrefix(one), []uint32{GracefulShutdown, 65000<<16 | 100}}, {Prefix: netip.MustParsePrefix(two)}},
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
	lost, stray := announcement{Route: want[0], nextHop: netip.IPv4Unspecified()},
		announcement{Route: prefixes("192.0.2.0/24")[0], nextHop: netip.IPv4Unspecified()}
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

func TestSetPeers(t *testing.T) {
	first := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	second := startRemote(t, "127.0.0.3", remoteOptions{as: 65000})
	s, book := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	set := func(peers ...Peer) {
		t.Helper()
		if err := s.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	set(first.peer("rr1"))
	before := awaitState(t, s, "rr1", stateEstablished)
	awaitTable(t, first, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
	first.history()

	// A second peer is added, the first one renamed: its session stays.
	set(first.peer("reflector-1"), second.peer("rr2"))
	awaitState(t, s, "rr2", stateEstablished)
	awaitTable(t, second, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
	if after := status(t, s, "reflector-1"); after.Since != before.Since {
		t.Errorf("session of the renamed peer is %s since %s, want %s", after.State, after.Since, before.Since)
	}

	// The second one changes: only it is connected to anew.
	changed := second.peer("rr2")
	changed.HoldTime = 9 * time.Second
	since := status(t, s, "rr2").Since
	set(first.peer("reflector-1"), changed)
	eventually(t, func() (bool, string) {
		p := status(t, s, "rr2")
		return p.State == stateEstablished && p.Since != since, "the changed peer did not come back: " + p.State
	})

	// It goes.
	set(first.peer("reflector-1"))
	eventually(t, func() (bool, string) { return second.count(t) == 0, "the removed peer keeps the route" })
	if after := status(t, s, "reflector-1"); after.Since != before.Since || len(s.Peers()) != 1 {
		t.Errorf("peers after the second was removed: %+v", s.Peers())
	}
	if h := first.history(); len(h) != 0 {
		t.Errorf("the peer that did not change was told %q", h)
	}
	if got := strings.Count(book.String(), `msg="bgp session down"`); got != 2 {
		t.Errorf("%d lines about sessions that went down, want 2:\n%s", got, book)
	}
	for _, want := range []string{
		`level=INFO msg="bgp session up" peer=rr1 address=127.0.0.2 as=65000 families=ipv4-unicast,ipv6-unicast`,
		`level=INFO msg="bgp session down" peer=rr2 address=127.0.0.3 as=65000 reason="closed by us: Cease/peer de-configured"`,
	} {
		if !strings.Contains(book.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, book)
		}
	}
}

func TestSetPeersInvalid(t *testing.T) {
	s, _ := startSpeaker(t, Options{})
	good := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: 1, AS: 65000}
	with := func(f func(*Peer)) []Peer {
		p := good
		f(&p)
		return []Peer{p}
	}
	for _, test := range []struct {
		peers []Peer
		want  string
	}{
		{with(func(p *Peer) { p.Address = netip.Addr{} }), "setting BGP peer rr1: invalid IP is no address of a peer"},
		{with(func(p *Peer) { p.Address = netip.MustParseAddr("ff02::1") }), "setting BGP peer rr1: ff02::1 is no address of a peer"},
		{with(func(p *Peer) { p.Address = netip.MustParseAddr("fe80::1") }), "setting BGP peer rr1: fe80::1 is link-local and needs its interface, as in fe80::1%eth0"},
		{with(func(p *Peer) { p.AS = 0 }), "setting BGP peer rr1: AS 0 is reserved"},
		{with(func(p *Peer) { p.Port = 70000 }), "setting BGP peer rr1: port 70000 is no port"},
		{with(func(p *Peer) { p.HoldTime = time.Second }), "setting BGP peer rr1: hold time 1s is not between 3s and 65535s"},
		{with(func(p *Peer) { p.Password = strings.Repeat("x", 81) }), "setting BGP peer rr1: the password has 81 bytes, more than the 80 of a TCP MD5 key"},
		{[]Peer{good, {Name: "rr2", Address: good.Address, AS: 1}}, "setting BGP peer rr2: peer rr1 has the same address 127.0.0.2"},
	} {
		if err := s.SetPeers(test.peers); err == nil || err.Error() != test.want {
			t.Errorf("got error %v, want %s", err, test.want)
		}
		if len(s.Peers()) != 0 {
			t.Fatalf("peers were set in spite of %s", test.want)
		}
	}
}

func TestPeerComesLater(t *testing.T) {
	s, _ := startSpeaker(t, Options{})
	port := freePort(t, "127.0.0.2")
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: port, AS: 65000, HoldTime: 6 * time.Second}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		p := status(t, s, "rr1")
		return p.LastError == "connection refused" && p.State == stateConnect, fmt.Sprintf("%+v", p)
	})
	r := startRemoteAt(t, "127.0.0.2", port, remoteOptions{as: 65000})
	begun := time.Now()
	awaitState(t, s, "rr1", stateEstablished)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("session up %s after the peer came", took)
	}

	// It leaves, with its reasons, and comes back.
	if err := r.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{Communication: "maintenance\n"}); err != nil {
		t.Fatal(err)
	}
	want := `peer closed: Cease/administrative shutdown ("maintenance")`
	eventually(t, func() (bool, string) {
		p := status(t, s, "rr1")
		return p.LastError == want, fmt.Sprintf("%+v", p)
	})
	r.Stop()
	startRemoteAt(t, "127.0.0.2", port, remoteOptions{as: 65000})
	awaitState(t, s, "rr1", stateEstablished)
}

func TestWrongAS(t *testing.T) {
	for _, test := range []struct {
		name           string
		as, configured uint32 // the remote's, and what the speaker thinks it is
		callerAS       uint32 // what the remote thinks the speaker's is
		want           string
	}{
		{"theirs", 65001, 65002, 0, "closed by us: peer is in AS 65001, not in AS 65002"},
		{"ours", 65001, 65001, 65003, "peer closed: OPEN message error/bad peer AS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := startRemote(t, "127.0.0.2", remoteOptions{as: test.as, callerAS: test.callerAS})
			s, book := startSpeaker(t, Options{})
			p := r.peer("tor1")
			p.AS = test.configured
			if err := s.SetPeers([]Peer{p}); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() (bool, string) {
				p := status(t, s, "tor1")
				return p.LastError == test.want, fmt.Sprintf("%+v", p)
			})
			if !strings.Contains(book.String(), `msg="bgp session not up" peer=tor1 address=127.0.0.2 as=`) {
				t.Errorf("log:\n%s", book)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000, password: "sesame"})
	s, book := startSpeaker(t, Options{})
	p := r.peer("rr1")
	p.Password = "wrong horse"
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		p := status(t, s, "rr1")
		return p.LastError == "no answer within 2s (a wrong password looks the same)", fmt.Sprintf("%+v", p)
	})
	p.Password = "sesame"
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "rr1", stateEstablished)
	for _, secret := range []string{"wrong horse", "sesame"} {
		if strings.Contains(book.String(), secret) {
			t.Errorf("the log shows a password:\n%s", book)
		}
	}
}

// The peer calls, and is known by its address and key.
func TestListen(t *testing.T) {
	port := freePort(t, "0.0.0.0")
	s, _ := startSpeaker(t, Options{ListenPort: port})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	// The remote listens on another port than it is said to: our calls fail.
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000, password: "sesame", transport: &api.Transport{
		LocalAddress: "127.0.0.2", RemotePort: uint32(port)}})
	p := r.peer("rr1")
	p.Port = freePort(t, "127.0.0.2")
	p.Password = "sesame"
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")

	// A stranger gets nothing.
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger read %d bytes, error %v", n, err)
	}
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

// The withdrawals come before the end of the session, so that a peer that
// would keep a lost session's routes (RFC 4724) keeps none.
func TestCloseWithdraws(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	s, book := startSpeaker(t, Options{})
	routes := many(2000)
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPeers([]Peer{r.peer("rr1")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { n := r.count(t); return n == len(routes), fmt.Sprint(n, " routes") })
	updates := make(chan int, 1000)
	callbacks, option := watchWithdrawals(updates)
	if err := r.WatchEvent(t.Context(), callbacks, option); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	withdrawn := 0
	for withdrawn < len(routes) {
		select {
		case n := <-updates:
			withdrawn += n
		case <-time.After(patience):
			t.Fatalf("%d withdrawals, want %d", withdrawn, len(routes))
		}
	}
	if want := `reason="closed by us: Cease/administrative shutdown`; !strings.Contains(book.String(), want) {
		t.Errorf("log lacks %s:\n%s", want, book)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if err := s.Set(nil); err == nil {
		t.Error("a closed speaker takes routes")
	}
	if err := s.SetPeers(nil); err == nil {
		t.Error("a closed speaker takes peers")
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
		path, err := announcement{Route: route, nextHop: netip.MustParseAddr("192.0.2.7")}.path()
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

// A peer that opens the session and then reads nothing holds up neither Set
// nor Close.
func TestPeerThatReadsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go deaf(l)
	s, _ := startSpeaker(t, Options{})
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "rr1", stateEstablished)
	// Each route in a message of its own, of 1 kB: no buffers hold that much.
	routes := many(8000)
	for i := range routes {
		for j := range 250 {
			routes[i].Communities = append(routes[i].Communities, uint32(i)<<16|uint32(j))
		}
	}
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("close took %s", time.Since(begun))
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("close took %s", took)
	}
}

// deaf accepts one session after another, keeps it alive, and reads no more
// than the OPEN.
func deaf(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.(*net.TCPConn).SetReadBuffer(4096)
		open, err := bgp.NewBGPOpenMessage(65000, 90, netip.MustParseAddr("192.0.2.66"), []bgp.OptionParameterInterface{
			bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC)})})
		if err != nil {
			return
		}
		for _, m := range []*bgp.BGPMessage{open, bgp.NewBGPKeepAliveMessage()} {
			b, err := m.Serialize()
			if err != nil {
				return
			}
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
		defer conn.Close()
	}
}

// watchWithdrawals counts the withdrawals in UPDATEs that come in.
func watchWithdrawals(counts chan<- int) (server.WatchEventMessageCallbacks, server.WatchOption) {
	return server.WatchEventMessageCallbacks{OnPathUpdate: func(paths []*apiutil.Path, _ time.Time) {
		n := 0
		for _, p := range paths {
			if p.Withdrawal {
				n++
			}
		}
		counts <- n
	}}, server.WatchUpdate(false, "", "")
}
