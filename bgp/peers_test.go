package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

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
	awaitHistory(t, first, "+ 198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")

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
	if after := status(t, s, "rr2"); after.Since == since {
		t.Errorf("session of the changed peer is %s since %s", after.State, after.Since)
	}

	// It goes.
	set(first.peer("reflector-1"))
	eventually(t, func() (bool, string) { return second.count(t) == 0, "the removed peer keeps the route" })
	if after := status(t, s, "reflector-1"); after.Since != before.Since || len(s.Peers()) != 1 {
		t.Errorf("peers after the second was removed: %+v", s.Peers())
	}
	if h := first.history(); len(h) != 0 {
		t.Errorf("the peer that did not change was told %q", h)
	}
	if got := strings.Count(book.String(), `msg="bgp session down"`); got != 1 {
		t.Errorf("%d lines about sessions that went down, want 1:\n%s", got, book)
	}
	for _, want := range []string{
		`level=INFO msg="bgp session up" peer=rr1 address=127.0.0.2 as=65000 families=ipv4-unicast,ipv6-unicast`,
		`level=INFO msg="bgp session down" peer=rr2 address=127.0.0.3 as=65000 reason="closed by us: Cease/administrative reset (\"configuration changed: hold time\")"`,
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
		{with(func(p *Peer) { p.Passive = true }), "setting BGP peer rr1: it is to call, and there is no port to call at"},
		{with(func(p *Peer) { p.Source = netip.MustParseAddr("::1") }), "setting BGP peer rr1: source address ::1 cannot call 127.0.0.2"},
		{with(func(p *Peer) { p.Multihop = 256 }), "setting BGP peer rr1: 256 hops is not between 1 and 255"},
		{with(func(p *Peer) { p.Families = 4 }), "setting BGP peer rr1: there are no address families 0x4"},
		{with(func(p *Peer) { p.Attributes.LocalPreference = new(uint32(0)) }), "setting BGP peer rr1: local preference 0 is not possible"},
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
	// A call each second or so; GoBGP by itself would take 5 s and more.
	if took := time.Since(begun); took > 4*time.Second {
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
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger read %d bytes, error %v", n, err)
	}
}
