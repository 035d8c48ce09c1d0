package bgp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// callAs calls a speaker from an address.
func callAs(t *testing.T, from string, port int) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// What is no OPEN, or one that no session can follow from, is refused before
// GoBGP hears of it, with the NOTIFICATION that RFC 4271 has for it.
func TestCallRefused(t *testing.T) {
	port := freePort(t, "0.0.0.0")
	s, book := startSpeaker(t, Options{ListenPort: port})
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), AS: 65000, Passive: true}
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	opening := func(change func(body []byte)) []byte {
		body := []byte{4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 66, 0}
		change(body)
		return frame(bgp.BGP_MSG_OPEN, body)
	}
	for _, test := range []struct {
		name   string
		sent   []byte
		told   []byte
		reason string
	}{
		{"garbage", []byte("GET / HTTP/1.1\r\n\r\n      "), []byte{1, 1}, "closed by us: message header error/connection not synchronized"},
		{"a length of 9", append(slices.Clone(marker16), 0, 9, 1), []byte{1, 2, 0, 9}, "closed by us: message header error/bad message length"},
		{"a KEEPALIVE", frame(bgp.BGP_MSG_KEEPALIVE, nil), []byte{5, 1, 4}, "closed by us: finite state machine error/unexpected message in opensent"},
		{"half an OPEN", frame(bgp.BGP_MSG_OPEN, []byte{4, 0}), []byte{2, 0}, "closed by us: OPEN message error"},
		{"another version", opening(func(b []byte) { b[0] = 3 }), []byte{2, 1, 0, 4}, "closed by us: OPEN message error/unsupported version number"},
		{"another AS", opening(func(b []byte) { b[2] = 0xe9 }), []byte{2, 2}, "closed by us: peer is in AS 65001, not in AS 65000"},
		{"no identifier", opening(func(b []byte) { copy(b[5:], make([]byte, 4)) }), []byte{2, 3}, "closed by us: OPEN message error/bad BGP identifier"},
		{"a hold time of 2 s", opening(func(b []byte) { b[4] = 2 }), []byte{2, 6}, "closed by us: OPEN message error/unacceptable hold time"},
	} {
		// All in one outage, as fast as calls are taken.
		s.sessions[p.Address].mu.Lock()
		s.sessions[p.Address].callsLeft = callBurst
		s.sessions[p.Address].mu.Unlock()
		conn := callAs(t, "127.0.0.2", port)
		if _, err := conn.Write(test.sent); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		told, err := read(conn)
		if want := frame(bgp.BGP_MSG_NOTIFICATION, test.told); !slices.Equal(told, want) {
			t.Errorf("%s: the peer was told %v (%v), want %v", test.name, told, err, want)
		}
		_ = conn.Close()
		eventually(t, func() (bool, string) {
			p := status(t, s, "rr1")
			return p.LastError == test.reason && p.State == stateActive && strings.Contains(book.String(), test.reason),
				fmt.Sprintf("%s: %+v, log\n%s", test.name, p, book)
		})
	}
	// Thereafter the peer calls as it should.
	s.sessions[p.Address].mu.Lock()
	s.sessions[p.Address].callsLeft = callBurst
	s.sessions[p.Address].mu.Unlock()
	conn := callAs(t, "127.0.0.2", port)
	defer conn.Close()
	if _, err := conn.Write(slices.Concat(opening(func([]byte) {}), frame(bgp.BGP_MSG_KEEPALIVE, nil))); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s, "rr1", stateEstablished)
}

// A flood of calls from a peer's address costs a few lines, and no goroutine
// that stays; the session that we call ourselves comes up all the same.
func TestCallFlood(t *testing.T) {
	port := freePort(t, "0.0.0.0")
	s, book := startSpeaker(t, Options{ListenPort: port})
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	p := Peer{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port, AS: 65000}
	_ = l.Close() // nobody answers at first
	if err := s.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) { p := status(t, s, "rr1"); return p.LastError != "", fmt.Sprintf("%+v", p) })
	before := runtime.NumGoroutine()
	const calls = 2000
	silent := callAs(t, "127.0.0.2", port)
	defer silent.Close()
	for i := range calls {
		conn := callAs(t, "127.0.0.2", port)
		as := byte(i) // another reason each time
		_, _ = conn.Write(frame(bgp.BGP_MSG_OPEN, []byte{4, 1, as, 0, 90, 192, 0, 2, 66, 0}))
		_ = conn.Close()
	}
	lines := strings.Count(book.String(), "\n")
	t.Logf("%d lines after %d calls", lines, calls)
	if lines > maxTold+2 {
		t.Errorf("%d lines after %d calls:\n%s", lines, calls, book)
	}
	r := startRemoteAt(t, "127.0.0.2", p.Port, remoteOptions{as: 65000})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, r, "198.51.100.1/32 origin 0 path [] via 127.0.0.1 pref 100")
	r.Stop()
	_ = silent.Close()
	eventually(t, func() (bool, string) {
		n := runtime.NumGoroutine()
		return n < before+20, fmt.Sprintf("%d goroutines, %d before", n, before)
	})
}

// Of a peer's calls so many are looked at, and no more.
func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{}
		taken := func(n int) (taken int) {
			for range n {
				if s.mayCall() {
					taken++
				}
			}
			return taken
		}
		if got := taken(1000); got != callBurst {
			t.Errorf("%d taken at once, want %d", got, callBurst)
		}
		time.Sleep(3 * callEvery)
		if got := taken(1000); got != 3 {
			t.Errorf("%d taken after %s, want 3", got, 3*callEvery)
		}
	})
}

// A session that is not up for ever new reasons tells so many of them.
func TestReasonsAreBounded(t *testing.T) {
	book := &logbook{}
	s := newSession(nil, nil, book.logger(slog.LevelInfo), func() {}, Peer{Name: "rr1", AS: 65000}, false)
	for i := range 1000 {
		s.down(slog.LevelWarn, fmt.Sprintf("reason %d", i))
		s.turnAway(fmt.Sprintf("reason %d", i))
	}
	if got := strings.Count(book.String(), "\n"); got != maxTold+1 {
		t.Errorf("%d lines, want %d:\n%s", got, maxTold+1, book)
	}
	if p, _ := s.status(); p.LastError != "reason 999" {
		t.Errorf("status has %q", p.LastError)
	}
	s.up(nil)
	s.down(slog.LevelWarn, "reason 1")
	s.down(slog.LevelWarn, "reason 2")
	if !strings.HasSuffix(book.String(), "reason=\"reason 1\"\nlevel=WARN msg=\"bgp session not up\" as=65000 reason=\"reason 2\"\n") {
		t.Errorf("a new outage does not tell its reasons:\n%s", book)
	}
}
