package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// TestOffer: what OPENs say of a restart, in the order in which they are sent.
func TestOffer(t *testing.T) {
	asked := Peer{GracefulRestart: time.Minute}
	for _, test := range []struct {
		name      string
		preserved Families
		peer      Peer
		up        bool          // a session has been up before
		after     time.Duration // the start
		want      offer
	}{
		{name: "forwarding went on", preserved: IPv4 | IPv6, peer: asked, after: time.Second, want: offer{true, IPv4 | IPv6}},
		{name: "of one family", preserved: IPv6, peer: asked, want: offer{true, IPv6}},
		{name: "it did not", peer: asked, want: offer{}},
		{name: "a peer that is down for long", preserved: IPv4 | IPv6, peer: asked, after: time.Minute, want: offer{}},
		{name: "the session before was this process's", preserved: IPv6, peer: asked, up: true, want: offer{false, IPv4 | IPv6}},
		{name: "the same after a start without", peer: asked, up: true, after: time.Hour, want: offer{false, IPv4 | IPv6}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &session{peer: test.peer, restart: restart{preserved: test.preserved, since: time.Now()}}
				if test.up {
					s.agree()
				}
				time.Sleep(test.after)
				if got := s.offer(test.peer); got != test.want {
					t.Errorf("got %+v, want %+v", got, test.want)
				}
			})
		})
	}
}

// TestMark: an OPEN says what is offered, whatever it said before, and all else
// in it stays.
func TestMark(t *testing.T) {
	body := func(flags byte, v4, v6 byte) []byte {
		capabilities := []byte{1, 4, 0, 1, 0, 1, 64, 10, flags | 0x0f, 0xff, 0, 1, 1, v4, 0, 2, 1, v6, 2, 0}
		fixed := []byte{4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 1, byte(2 + len(capabilities)), 2, byte(len(capabilities))}
		return frame(bgp.BGP_MSG_OPEN, append(fixed, capabilities...))
	}
	for _, test := range []struct {
		name  string
		sent  []byte
		offer offer
		want  []byte
	}{
		{"nothing", body(0, 0, 0), offer{}, body(0, 0, 0)},
		{"a restart", body(0, 0, 0), offer{true, IPv4 | IPv6}, body(0x80, 0x80, 0x80)},
		{"a restart of one family", body(0, 0, 0), offer{true, IPv6}, body(0x80, 0, 0x80)},
		{"another session", body(0, 0, 0), offer{false, IPv4 | IPv6}, body(0, 0x80, 0x80)},
		{"no N bit, whoever set it", body(0xf0, 0x80, 0xff), offer{}, body(0, 0, 0)},
		{"no capability", frame(bgp.BGP_MSG_OPEN, make([]byte, openLength)), offer{true, IPv4}, frame(bgp.BGP_MSG_OPEN, make([]byte, openLength))},
		{"no OPEN", frame(bgp.BGP_MSG_OPEN, nil), offer{true, IPv4}, frame(bgp.BGP_MSG_OPEN, nil)},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := string(test.sent)
			if diff := cmp.Diff(test.want, test.offer.mark(test.sent)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if string(test.sent) != before {
				t.Error("the message of GoBGP's was written to")
			}
		})
	}
}

// routerOf is the end of a session that a test holds in its own hands: it takes
// the next call and offers graceful restart. It returns the speaker's OPEN.
func routerOf(t *testing.T, l net.Listener) (conn net.Conn, opened []byte) {
	t.Helper()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	capabilities := []byte{1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 64, 2, 0, 120}
	fixed := []byte{4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 66, byte(2 + len(capabilities)), 2, byte(len(capabilities))}
	if _, err := conn.Write(slices.Concat(frame(bgp.BGP_MSG_OPEN, append(fixed, capabilities...)), frame(bgp.BGP_MSG_KEEPALIVE, nil))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if opened, err = read(conn); err != nil {
		t.Fatal(err)
	}
	return conn, opened
}

// restartSaid is what an OPEN says of graceful restart, as in "R 60s 1F 2".
func restartSaid(t *testing.T, open []byte) string {
	t.Helper()
	said := "nothing"
	if !capabilities(open[headerLength:], func(code byte, value []byte) {
		if code != 64 {
			return
		}
		said = ""
		if value[0]&0x80 != 0 {
			said = "R "
		}
		if value[0]&0x70 != 0 {
			said += "other bits "
		}
		said += fmt.Sprintf("%ds", int(value[0]&0x0f)<<8|int(value[1]))
		for tuple := range slices.Chunk(value[2:], 4) {
			said += fmt.Sprintf(" %d", tuple[1])
			if tuple[3] == 0x80 {
				said += "F"
			}
		}
	}) {
		t.Fatalf("no OPEN: %v", open)
	}
	return said
}

// What a peer is told by a process that has just started, and in which order:
// the routes, then the End-of-RIB of their family, whatever becomes of another
// peer. The session after that is none after a restart.
func TestRestartOnTheWire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _ := startSpeaker(t, Options{Preserved: IPv4 | IPv6})
	hop := Attributes{NextHop6: netip.MustParseAddr("2001:db8::84")}
	if err := s.Set([]Route{with("198.51.100.1/32", hop), with("2001:db8:1::1/128", hop)}); err != nil {
		t.Fatal(err)
	}
	peers := []Peer{
		{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, GracefulRestart: time.Minute},
		{Name: "down", Address: netip.MustParseAddr("127.0.0.3"), Port: 1, AS: 65000, GracefulRestart: time.Minute},
	}
	begun := time.Now()
	if err := s.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"R 60s 1F 2F", "60s 1F 2F"} {
		conn, opened := routerOf(t, l)
		if got := restartSaid(t, opened); got != want {
			t.Errorf("the OPEN says %q, want %q", got, want)
		}
		var told []string
		for len(told) < 4 {
			m, err := read(conn)
			if err != nil {
				t.Fatalf("%v, after %q", err, told)
			}
			if m[18] != bgp.BGP_MSG_UPDATE {
				continue
			}
			body := m[headerLength:]
			family, end := endOfRIB(body)
			switch {
			case end && family == bgp.RF_IPv4_UC:
				told = append(told, "end of IPv4")
			case end:
				told = append(told, "end of IPv6")
			case strings.Contains(string(body), string([]byte{32, 198, 51, 100, 1})):
				told = append(told, "IPv4 route")
			default:
				told = append(told, "IPv6 route")
			}
		}
		for _, family := range []string{"IPv4", "IPv6"} {
			if route, end := slices.Index(told, family+" route"), slices.Index(told, "end of "+family); route < 0 || end < route {
				t.Errorf("told %q", told)
			}
		}
		if p := status(t, s, "rr1"); p.GracefulRestart != time.Minute || p.GracefulRestartAsked != time.Minute {
			t.Errorf("status %+v", p)
		}
		_ = conn.Close()
	}
	if took := time.Since(begun); took > patience {
		t.Errorf("it took %s", took)
	}
	if p := status(t, s, "down"); p.GracefulRestart != 0 || p.GracefulRestartAsked != time.Minute {
		t.Errorf("status %+v", p)
	}

	// Off, the OPEN says nothing of it.
	peers[0].GracefulRestart = 0
	if err := s.SetPeers(peers[:1]); err != nil {
		t.Fatal(err)
	}
	for { // past a call with what was before
		_, opened := routerOf(t, l)
		if restartSaid(t, opened) == "nothing" {
			return
		}
	}
}

// A speaker that leaves says nothing, neither a withdrawal nor a NOTIFICATION.
func TestAbandon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, book := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, GracefulRestart: time.Minute}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	conn, _ := routerOf(t, l)
	awaitState(t, s, "rr1", stateEstablished)
	s.Abandon()
	s.Abandon() // does nothing
	for {
		m, err := read(conn)
		if err != nil {
			break
		}
		if m[18] == bgp.BGP_MSG_NOTIFICATION || m[18] == bgp.BGP_MSG_UPDATE && withdrawals(m[headerLength:]) > 0 {
			t.Errorf("the peer was told %v", m)
		}
	}
	if err := s.Set(nil); err == nil {
		t.Error("a speaker that has left takes routes")
	}
	if want := `msg="bgp session down" peer=rr1 address=127.0.0.2 as=65000 reason="left without a word"`; !strings.Contains(book.String(), want) {
		t.Errorf("the log has\n%s\nwant %s", book, want)
	}
}
