package bgp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// pair is a connection under test and the peer's end of it.
func pair(t *testing.T) (*connection, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newConnection(near.(*net.TCPConn), 65000, 200*time.Millisecond, nil)
	t.Cleanup(func() { _, _ = c.Close(), far.Close() })
	return c, far.(*net.TCPConn)
}

func serialize(t *testing.T, m *bgp.BGPMessage) []byte {
	t.Helper()
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, as uint32, f ...bgp.Family) []byte {
	t.Helper()
	capabilities := []bgp.ParameterCapabilityInterface{bgp.NewCapFourOctetASNumber(as)}
	for _, f := range f {
		capabilities = append(capabilities, bgp.NewCapMultiProtocol(f))
	}
	m, err := bgp.NewBGPOpenMessage(bgp.AS_TRANS, 90, netip.MustParseAddr("192.0.2.1"),
		[]bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(capabilities)})
	if err != nil {
		t.Fatal(err)
	}
	return serialize(t, m)
}

// read takes one message as GoBGP does: the header, then the rest.
func read(c net.Conn) ([]byte, error) {
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(c, header); err != nil {
		return nil, err
	}
	body := make([]byte, int(header[16])<<8+int(header[17])-headerLength)
	_, err := io.ReadFull(c, body)
	return append(header, body...), err
}

// establish exchanges OPEN and KEEPALIVE.
func establish(t *testing.T, c *connection, far net.Conn) {
	t.Helper()
	keepalive := serialize(t, bgp.NewBGPKeepAliveMessage())
	steps := []struct {
		write, read []byte
		state       string
	}{
		{write: open(t, 65000), state: stateOpenSent},
		{read: open(t, 4200000000, bgp.RF_IPv6_UC), state: stateOpenSent},
		{write: keepalive, state: stateOpenConfirm},
		{read: keepalive, state: stateEstablished},
	}
	for _, step := range steps {
		if step.write != nil {
			if _, err := c.Write(step.write); err != nil {
				t.Fatal(err)
			}
		}
		if step.read != nil {
			if _, err := far.Write(step.read); err != nil {
				t.Fatal(err)
			}
			got, err := read(c)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(step.read, got); diff != "" {
				t.Fatalf("message (-want +got):\n%s", diff)
			}
		}
		if state, _ := c.progress(); state != step.state {
			t.Fatalf("state %s, want %s", state, step.state)
		}
	}
	if _, f := c.progress(); !cmp.Equal(f, []bgp.Family{bgp.RF_IPv6_UC}) {
		t.Errorf("families %v", f)
	}
}

// Announcements become keepalives, whatever the pieces they come in; what
// matters of all else passes.
func TestConnectionDropsUpdates(t *testing.T) {
	c, far := pair(t)
	establish(t, c, far)
	keepalive := serialize(t, bgp.NewBGPKeepAliveMessage())
	nlri, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix("0.0.0.0/0"))
	if err != nil {
		t.Fatal(err)
	}
	hop, err := bgp.NewPathAttributeNextHop(netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	shortest := serialize(t, bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeAsPath(nil), hop}, []bgp.PathNLRI{{NLRI: nlri}}))
	longest := make([]byte, 65535) // RFC 8654
	copy(longest, shortest)
	longest[16], longest[17] = 0xff, 0xff
	refresh := func(afi uint16, subtype, safi uint8) []byte {
		return serialize(t, bgp.NewBGPRouteRefreshMessage(afi, subtype, safi))
	}
	update := func(body ...byte) []byte { return frame(bgp.BGP_MSG_UPDATE, body) }
	for _, test := range []struct {
		name       string
		sent, want []byte
	}{
		{"the shortest announcement", shortest, keepalive},
		{"the longest announcement", longest, keepalive},
		{"a marker for IPv4", serialize(t, bgp.NewEndOfRib(bgp.RF_IPv4_UC)), nil},
		{"a marker for IPv6", serialize(t, bgp.NewEndOfRib(bgp.RF_IPv6_UC)), nil},
		{"a marker in the long form", update(0, 0, 0, 7, 0x90, 15, 0, 3, 0, 2, 1), nil},
		{"a marker for another family", update(0, 0, 0, 6, 0x80, 15, 3, 0, 2, 4), keepalive},
		{"no marker: AS4_PATH before AS_PATH", update(0, 0, 0, 6, 0xc0, 17, 0, 0x40, 2, 0), keepalive},
		{"no marker: MP_UNREACH_NLRI of two bytes", update(0, 0, 0, 5, 0x80, 15, 2, 0, 2), keepalive},
		{"no marker: an attribute longer than all", update(0, 0, 0, 6, 0x80, 15, 200, 0, 2, 1), keepalive},
		{"no marker: a withdrawal", update(0, 1, 0, 0, 0), keepalive},
		{"no marker: a prefix", update(0, 0, 0, 0, 0), keepalive},
		{"no marker: nothing", update(), keepalive},
		{"a route refresh", refresh(1, 0, 1), nil},
		{"a route refresh for another family", refresh(1, 0, 128), keepalive},
		{"a route refresh of another kind", refresh(1, 1, 1), keepalive},
		{"a route refresh with filters", frame(bgp.BGP_MSG_ROUTE_REFRESH, []byte{0, 1, 0, 1, 1, 128, 0, 0}), keepalive},
		{"a notification with a text", serialize(t, bgp.NewBGPNotificationMessage(6, 2, []byte("\x03bye"))),
			frame(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2})},
		{"a keepalive", keepalive, nil},
	} {
		want := test.want
		if want == nil {
			want = test.sent
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := 0; i < len(test.sent); i += 7 {
				if _, err := far.Write(test.sent[i:min(i+7, len(test.sent))]); err != nil {
					t.Error(err)
					return
				}
			}
		})
		got, err := read(c)
		sending.Wait()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// GoBGP stops a read by its deadline, wherever in a message that is, and may
// go on later.
func TestConnectionReadInterrupted(t *testing.T) {
	c, far := pair(t)
	establish(t, c, far)
	update := bytes.Repeat([]byte{0xff}, 2000)
	update[16], update[17], update[18] = 2000>>8, 2000&0xff, bgp.BGP_MSG_UPDATE
	keepalive := serialize(t, bgp.NewBGPKeepAliveMessage())
	for _, at := range []int{5, 1000} {
		if _, err := far.Write(update[:at]); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for {
			if _, err := read(c); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := far.Write(append(update[at:len(update):len(update)], open(t, 1)...)); err != nil {
			t.Fatal(err)
		}
		for kind := byte(0); kind != bgp.BGP_MSG_OPEN; {
			m, err := read(c)
			if err != nil {
				t.Fatal(err)
			}
			kind = m[18]
			if kind != bgp.BGP_MSG_OPEN && !cmp.Equal(m, keepalive) {
				t.Fatalf("read %v", m)
			}
		}
	}
	if c.cause != "" {
		t.Errorf("an interrupted read counts as %s", c.cause)
	}
}

func TestConnectionReason(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, c *connection, far *net.TCPConn)
		want string
	}{
		{"the peer says why", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = far.Write(serialize(t, bgp.NewBGPNotificationMessage(6, 2, nil)))
			_ = far.Close()
			_, _ = read(c)
			_, _ = read(c)
		}, "peer closed: Cease/administrative shutdown"},
		{"the peer does not", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = far.Write(open(t, 65000))
			_, _ = read(c)
			_ = far.Close()
			_, _ = read(c)
		}, "peer closed the connection"},
		{"in the middle of a message", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = far.Write(make([]byte, 10))
			_ = far.Close()
			_, _ = read(c)
		}, "peer closed the connection without an OPEN (does it have 127.0.0.1 as a neighbor?)"},
		{"a reset", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = far.Write(open(t, 65000))
			_, _ = read(c)
			_ = far.SetLinger(0)
			_ = far.Close()
			_, _ = read(c)
		}, "connection reset by peer"},
		{"the wrong AS", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = far.Write(open(t, 65099))
			_, _ = read(c)
			_, _ = c.Write(serialize(t, bgp.NewBGPNotificationMessage(2, 2, nil)))
		}, "closed by us: peer is in AS 65099, not in AS 65000"},
		{"silence", func(t *testing.T, c *connection, far *net.TCPConn) {
			_, _ = c.Write(serialize(t, bgp.NewBGPNotificationMessage(4, 0, nil)))
		}, "hold timer expired: nothing heard from the peer"},
		{"nothing is read", func(t *testing.T, c *connection, far *net.TCPConn) {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, "peer read nothing for 200ms"},
		{"GoBGP closes", func(t *testing.T, c *connection, far *net.TCPConn) {}, "connection closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, far := pair(t)
			test.do(t, c, far)
			_ = c.Close()
			<-c.done
			_, _ = c.Read(make([]byte, 1)) // a closed connection has no reason of its own
			if got := c.reason(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestWithdrawals(t *testing.T) {
	v4, v6 := []bgp.PathNLRI{}, []bgp.PathNLRI{}
	for i, p := range []string{"198.51.100.1/32", "198.51.100.0/24", "0.0.0.0/0", "2001:db8::1/128", "2001:db8::/33"} {
		nlri, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix(p))
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			v4 = append(v4, bgp.PathNLRI{NLRI: nlri})
		} else {
			v6 = append(v6, bgp.PathNLRI{NLRI: nlri})
		}
	}
	long := []bgp.PathNLRI{}
	for range 40 { // an attribute of more than 255 bytes
		long = append(long, v6...)
	}
	unreach := func(nlri []bgp.PathNLRI) *bgp.BGPMessage {
		a, err := bgp.NewPathAttributeMpUnreachNLRI(bgp.RF_IPv6_UC, nlri)
		if err != nil {
			t.Fatal(err)
		}
		return bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), a}, nil)
	}
	for _, test := range []struct {
		name string
		m    *bgp.BGPMessage
		want int
	}{
		{"IPv4", bgp.NewBGPUpdateMessage(v4, nil, nil), 3},
		{"IPv6", unreach(v6), 2},
		{"many of IPv6", unreach(long), 80},
		{"an announcement", bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}, v4), 0},
		{"end of RIB, IPv4", bgp.NewEndOfRib(bgp.RF_IPv4_UC), 0},
		{"end of RIB, IPv6", bgp.NewEndOfRib(bgp.RF_IPv6_UC), 0},
	} {
		body := serialize(t, test.m)[headerLength:]
		if got := withdrawals(body); got != test.want {
			t.Errorf("%s: counted %d, want %d", test.name, got, test.want)
		}
		for cut := range body {
			withdrawals(body[:cut]) // must not panic
		}
	}
}
