package bgp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// crafted are messages that have brought speakers down, or might.
func crafted() [][]byte {
	update := func(nlri []byte, attributes ...[]byte) []byte {
		return frame(bgp.BGP_MSG_UPDATE, updateBody(nil, nlri, attributes...))
	}
	origin, path, hop := attribute(0x40, 1, 0), attribute(0x40, 2, 2, 1, 0, 0, 0xfd, 0xe8), attribute(0x40, 3, 192, 0, 2, 1)
	prefix := []byte{24, 198, 51, 100}
	open := func(capabilities ...byte) []byte {
		return frame(bgp.BGP_MSG_OPEN, slices.Concat([]byte{4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 66, byte(2 + len(capabilities)), 2, byte(len(capabilities))}, capabilities))
	}
	all := [][]byte{
		{},
		bytes.Repeat([]byte{0xff}, 100),
		make([]byte, 100),
		[]byte("GET / HTTP/1.1\r\n\r\n      "),
		update(prefix, origin, attribute(0xc0, 17, 2, 1, 0, 0, 0xfd, 0xe8), path, hop), // AS4_PATH before AS_PATH
		update(nil, attribute(0xc0, 17), attribute(0x40, 2)),
		update(prefix, origin, path, attribute(0x40, 3)),                              // a next hop of no bytes
		update(nil, origin, path, attribute(0x80, 14, 0, 2, 1, 0, 0, 32, 1, 2, 3, 4)), // the same of IPv6
		update(nil, attribute(0x80, 14)),
		update(nil, attribute(0x80, 15)),
		update(prefix, origin, path, hop, attribute(0xc0, 8, 1, 2, 3)), // three quarters of a community
		update(prefix, origin, path, hop, attribute(0xc0, 32, 1, 2, 3)),
		update(prefix, origin, path, hop, attribute(0xc0, 16, 1, 2, 3)),
		update(prefix, origin, attribute(0x40, 2, 2, 255), hop), // an AS path that is longer than its attribute
		update([]byte{255, 1}, origin, path, hop),               // a prefix of 255 bits
		frame(bgp.BGP_MSG_UPDATE, []byte{0xff, 0xff}),
		frame(bgp.BGP_MSG_UPDATE, []byte{0, 0, 0xff, 0xff}),
		frame(bgp.BGP_MSG_UPDATE, nil),
		frame(bgp.BGP_MSG_ROUTE_REFRESH, nil),
		frame(bgp.BGP_MSG_ROUTE_REFRESH, []byte{0, 1, 0, 1}),
		frame(bgp.BGP_MSG_NOTIFICATION, nil),
		frame(bgp.BGP_MSG_NOTIFICATION, []byte{6}),
		frame(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2, 200, 0x1b, '[', '2', 'J'}),
		frame(bgp.BGP_MSG_OPEN, nil),
		open(69, 3, 0, 1, 1), open(1, 1, 0), open(64, 1, 0), open(65, 1, 0), open(71, 1, 0), open(73, 0), open(9, 5, 1, 2, 3, 4, 5),
		open(1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe8),
	}
	for kind := range 256 {
		all = append(all,
			update(prefix, origin, path, hop, attribute(0xc0, byte(kind))),
			update(prefix, origin, path, hop, attribute(0xc0, byte(kind), 1, 2, 3, 4, 5, 6, 7)),
			open(byte(kind), 0), open(byte(kind), 3, 1, 2, 3))
	}
	return all
}

// A peer that sends garbage, before and after the session is up, harms nobody
// but itself: the process lives, and the other session never goes down. After
// what is crafted come attributes of every type with random bytes, the same in
// each run.
func TestGarbage(t *testing.T) {
	healthy := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _ := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32", "198.51.100.2/32")); err != nil {
		t.Fatal(err)
	}
	before := s.establish(t, healthy.peer("rr1"))
	// Its paths to the VIPs are read.
	s.Watch([]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")})
	bad := Peer{Name: "bad", Address: netip.MustParseAddr("127.0.0.3"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000, Siblings: true}
	// call has the speaker call the bad peer, at once and not after the pause
	// for a session that failed.
	call := func() net.Conn {
		t.Helper()
		// The calls of the session before must not be taken for the new one's.
		if err := s.SetPeers([]Peer{healthy.peer("rr1")}); err != nil {
			t.Fatal(err)
		}
		_ = l.(*net.TCPListener).SetDeadline(time.Now())
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_ = conn.Close()
		}
		_ = l.(*net.TCPListener).SetDeadline(time.Time{})
		if err := s.SetPeers([]Peer{healthy.peer("rr1"), bad}); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		return conn
	}
	handshake := slices.Concat(frame(bgp.BGP_MSG_OPEN, []byte{4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 66, 8, 2, 6, 1, 4, 0, 1, 0, 1}), frame(bgp.BGP_MSG_KEEPALIVE, nil))

	isUpdate := func(m []byte) bool { return len(m) >= headerLength && m[18] == bgp.BGP_MSG_UPDATE }
	var updates []byte
	sessions, count := 0, 0
	for _, message := range crafted() {
		if isUpdate(message) {
			updates = append(updates, message...)
			count++
			continue
		}
		for _, first := range [][]byte{nil, handshake} {
			conn := call()
			_, _ = conn.Write(slices.Concat(first, message))
			_ = conn.(*net.TCPConn).CloseWrite()
			defer conn.Close()
			sessions++
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		updates = append(updates, randomUpdate(random)...)
		count++
	}
	// An UPDATE is wrong before the session is up, and does nothing in it.
	early := call()
	defer early.Close()
	_, _ = early.Write(updates)
	late := call()
	defer late.Close()
	if _, err := late.Write(append(handshake, updates...)); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "bad", stateEstablished)
	eventually(t, func() (bool, string) {
		p := status(t, s, "bad").Received
		return p.Malformed > 1000 && p.Ignored > 1000, fmt.Sprintf("%+v", p)
	})
	// GoBGP has read all of them when it has read what comes after.
	if _, err := late.Write(frame(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2})); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		p := status(t, s, "bad")
		return p.LastError == "peer closed: Cease/administrative shutdown", fmt.Sprintf("%+v", p)
	})
	t.Logf("%d sessions, and %d UPDATEs in one", sessions, count)
	if left := s.Siblings(); len(left) > 0 {
		t.Errorf("siblings that the bad peer told of are left: %v", left)
	}

	after := status(t, s, "rr1")
	if after.State != stateEstablished || after.Since != before.Since {
		t.Errorf("the other session: %+v, want since %s", after, before.Since)
	}
	if got := healthy.count(t); got != 2 {
		t.Errorf("the other peer has %d routes, want 2", got)
	}
	if routes, err := s.Routes(); err != nil || len(routes) != 2 {
		t.Errorf("%d routes, error %v", len(routes), err)
	}
}

// randomUpdate is an UPDATE with attributes of random types, lengths and
// contents, whose outer lengths are right.
func randomUpdate(random *rand.Rand) []byte {
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	var attributes []byte
	for range random.IntN(8) {
		value := fill(random.IntN(40))
		attributes = append(append(attributes, fill(1)[0]&^0x10, fill(1)[0], byte(len(value))), value...)
	}
	withdrawn, nlri := fill(random.IntN(10)), fill(random.IntN(20))
	body := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	body = binary.BigEndian.AppendUint16(append(body, withdrawn...), uint16(len(attributes)))
	return frame(bgp.BGP_MSG_UPDATE, slices.Concat(body, attributes, nlri))
}
