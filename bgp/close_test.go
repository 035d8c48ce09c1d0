package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

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
	if took := time.Since(begun); took > 20*time.Second {
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
		_ = conn.(*net.TCPConn).SetReadBuffer(4096)
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
