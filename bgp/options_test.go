package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// established waits until a peer is, and returns its status.
func (s *Speaker) establish(t *testing.T, peers ...Peer) PeerStatus {
	t.Helper()
	if err := s.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	return awaitState(t, s, peers[0].Name, stateEstablished)
}

// A passive peer is not called; it calls.
func TestPassive(t *testing.T) {
	port := freePort(t, "0.0.0.0")
	s, _ := startSpeaker(t, Options{ListenPort: port})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, Passive: true}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, "rr1"); got.State != stateActive || got.LastError != "the peer has not called yet" {
		t.Errorf("%+v", got)
	}
	if err := l.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := l.Accept(); err == nil {
		t.Errorf("a passive peer was called from %s", conn.RemoteAddr())
	}
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000, transport: &api.Transport{
		LocalAddress: "127.0.0.2", RemotePort: uint32(port)}})
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
	before := awaitState(t, s, "rr1", stateEstablished)

	// To call it or not makes no difference to a session.
	p.Passive, p.Port = false, r.port
	if after := s.establish(t, p); after.Since != before.Since {
		t.Errorf("session since %s, want %s", after.Since, before.Since)
	}
}

// A peer that is not passive any more is called at once.
func TestPassiveNoMore(t *testing.T) {
	s, _ := startSpeaker(t, Options{ListenPort: freePort(t, "0.0.0.0")})
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	p := r.peer("rr1")
	p.Passive = true
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "rr1", stateActive)
	p.Passive = false
	s.establish(t, p)
}

func TestFamilies(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	s, book := startSpeaker(t, Options{})
	p := r.peer("rr1")
	p.Families = IPv4
	// No peer takes IPv6 routes, so none is missed for lack of a next hop.
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(prefixes("198.51.100.1/32", "2001:db8::1/128")); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
	if got := awaitState(t, s, "rr1", stateEstablished); got.Advertised != 1 {
		t.Errorf("%d routes advertised, want 1", got.Advertised)
	}
	if !strings.Contains(book.String(), "families=ipv4-unicast\n") {
		t.Errorf("log:\n%s", book)
	}

	p.Families = IPv6
	p.Attributes.NextHop6 = netip.MustParseAddr("2001:db8::84")
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, r, "2001:db8::1/128 origin 0 path [] pref 100 via 2001:db8::84")
	if got := awaitState(t, s, "rr1", stateEstablished); got.Advertised != 1 {
		t.Errorf("%d routes advertised, want 1", got.Advertised)
	}
}

func TestSource(t *testing.T) {
	port := freePort(t, "0.0.0.0")
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65000, caller: "127.0.0.9"})
	s, book := startSpeaker(t, Options{ListenPort: port})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	p := r.peer("rr1")
	p.Source = netip.MustParseAddr("127.0.0.9")
	before := s.establish(t, p)
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.9 pref 100")

	// No preference any more: the session is as good as another one.
	p.Source = netip.Addr{}
	if after := s.establish(t, p); after.Since != before.Since {
		t.Errorf("session since %s, want %s", after.Since, before.Since)
	}
	p.Source = netip.MustParseAddr("127.0.0.9")
	if after := s.establish(t, p); after.Since != before.Since {
		t.Errorf("session since %s, want %s", after.Since, before.Since)
	}
	// Another one: the peer does not know it.
	p.Source = netip.MustParseAddr("127.0.0.8")
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	want := `reason="closed by us: Cease/administrative reset (\"configuration changed: source address\")"`
	if !strings.Contains(book.String(), want) {
		t.Errorf("log lacks %s:\n%s", want, book)
	}
	r.Stop()

	// What the peer opens must come to that address too.
	call := func(to string) (read int) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		conn, err := d.Dial("tcp", net.JoinHostPort(to, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(open(t, 65000, bgp.RF_IPv4_UC))
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, _ := conn.Read(make([]byte, 1))
		return n
	}
	if call("127.0.0.7") != 0 {
		t.Error("a call to another address is taken")
	}
	eventually(t, func() (bool, string) { // one that comes together with our own is not
		return call("127.0.0.8") == 1, "a call to the source address is not taken"
	})
}

// What can change while the session is up changes there.
func TestChangeInPlace(t *testing.T) {
	r := startRemote(t, "127.0.0.2", remoteOptions{as: 65010})
	s, book := startSpeaker(t, Options{})
	p := r.peer("tor1")
	before := s.establish(t, p)
	current := func() *net.TCPConn {
		t.Helper()
		session := s.sessions[p.Address]
		session.mu.Lock()
		defer session.mu.Unlock()
		if session.current == nil {
			t.Fatal("there is no connection")
		}
		return session.current.TCPConn
	}
	for _, step := range []struct {
		change     func()
		ttl, least int
		told       string
	}{
		{func() {}, 1, 0, ""},
		{func() { p.Multihop = 5 }, 5, 0, `msg="bgp session changed in place" peer=tor1 address=127.0.0.2 as=65010 multihop=5 ttl_security=false`},
		{func() { p.TTLSecurity = true }, 255, 251, `multihop=5 ttl_security=true`},
		{func() { p.Multihop, p.TTLSecurity = 0, false }, 1, 0, `multihop=1 ttl_security=false`},
		{func() { p.Port = 1 }, 1, 0, ""},
		{func() { p.Name = "router-1" }, 1, 0, ""},
	} {
		step.change()
		if after := s.establish(t, p); after.Since != before.Since {
			t.Errorf("session since %s, want %s", after.Since, before.Since)
		}
		if ttl, least, _ := options(t, current()); ttl != step.ttl || least != step.least {
			t.Errorf("TTL %d, least %d, want %d, %d", ttl, least, step.ttl, step.least)
		}
		if !strings.Contains(book.String(), step.told) {
			t.Errorf("log lacks %s:\n%s", step.told, book)
		}
	}
}

// A password changes without an end of the session, where the peer's changes
// within the hold time.
func TestPasswordChange(t *testing.T) {
	peers := netip.MustParseAddr("127.0.0.2")
	ours := netip.MustParseAddr("127.0.0.1")
	listeners, err := listen(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		defer l.Close()
	}
	l := listeners[0]
	if err := setListenPassword(l, ours, "sesame"); err != nil {
		t.Fatal(err)
	}
	s, book := startSpeaker(t, Options{})
	p := Peer{Name: "rr1", Address: peers, Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, HoldTime: 3 * time.Second, Password: "sesame"}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keepalives := make(chan error)
	go func() {
		for {
			message, err := read(conn)
			if err != nil || message[18] == bgp.BGP_MSG_NOTIFICATION {
				keepalives <- fmt.Errorf("message %x, error %w", message, err)
				return
			}
			if message[18] == bgp.BGP_MSG_KEEPALIVE {
				keepalives <- nil
			}
		}
	}()
	keepalive := serialize(t, bgp.NewBGPKeepAliveMessage())
	if _, err := conn.Write(append(open(t, 65000, bgp.RF_IPv4_UC), keepalive...)); err != nil {
		t.Fatal(err)
	}
	before := awaitState(t, s, "rr1", stateEstablished)
	p.Password = "open, sesame"
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := control(raw, func(fd int) error { return setPassword(fd, ours, "open, sesame") }); err != nil {
		t.Fatal(err)
	}
	// Longer than the hold time, both ways.
	for begun := time.Now(); time.Since(begun) < 5*time.Second; {
		if err := <-keepalives; err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(keepalive); err != nil {
			t.Fatal(err)
		}
	}
	if after := status(t, s, "rr1"); after.State != stateEstablished || after.Since != before.Since {
		t.Errorf("%+v, want since %s", after, before.Since)
	}
	if want := `msg="bgp session changed in place" peer=rr1 address=127.0.0.2 as=65000 password=changed`; !strings.Contains(book.String(), want) {
		t.Errorf("log lacks %s:\n%s", want, book)
	}
	if strings.Contains(book.String(), "sesame") {
		t.Errorf("the log shows a password:\n%s", book)
	}
}
