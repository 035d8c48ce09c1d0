package control

import (
	"net"
	"strings"
	"testing"
	"time"
)

func mustListen(t *testing.T, s *Server, addr string) string {
	t.Helper()
	if err := s.SetListen(addr); err != nil {
		t.Fatal(err)
	}
	return s.HTTPAddr().String()
}

func healthy(t *testing.T, addr string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	status, body := roundTrip(t, "tcp", addr, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	return status == 200 && strings.Contains(body, `"state"`)
}

func TestSetListenMoves(t *testing.T) {
	s, _ := start(t)
	if s.HTTPAddr() != nil {
		t.Error("listens before it was told to")
	}
	first := mustListen(t, s, "127.0.0.1:0")
	if again := mustListen(t, s, "127.0.0.1:0"); again != first {
		t.Errorf("the same address again moved it from %s to %s", first, again)
	}
	second := mustListen(t, s, "127.0.0.2:0")
	if !healthy(t, second) {
		t.Errorf("%s does not answer", second)
	}
	waitGone(t, first)
	if err := s.SetListen(""); err != nil || s.HTTPAddr() != nil {
		t.Errorf("switched off: got %v, %v", err, s.HTTPAddr())
	}
	waitGone(t, second)
	if err := s.SetListen(""); err != nil {
		t.Errorf("switched off twice: %v", err)
	}
}

// waitGone waits until nobody listens on addr: the old listener closes in the
// background.
func waitGone(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s still listens", addr)
		}
	}
}

func TestSetListenFailureLeavesTheOld(t *testing.T) {
	s, _ := start(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	old := mustListen(t, s, "127.0.0.1:0")
	for _, tt := range []struct{ addr, want string }{
		{taken.Addr().String(), "address already in use: find who has it with ss -ltnp 'sport = :" + port + "'"},
		{"192.0.2.1:9404", "this host has no such address"},
		{"127.0.0.1", "missing port"},
		{"127.0.0.1:99999", "set [http] listen"},
	} {
		err := s.SetListen(tt.addr)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("SetListen(%q): got %v, want one line with %q", tt.addr, err, tt.want)
		}
		if !healthy(t, old) {
			t.Errorf("after SetListen(%q) %s does not answer", tt.addr, old)
		}
	}
}

// TestSetListenSamePort widens the address while the port stays, where the
// kernel refuses to have both.
func TestSetListenSamePort(t *testing.T) {
	s, _ := start(t)
	_, port, _ := net.SplitHostPort(mustListen(t, s, "127.0.0.1:0"))
	mustListen(t, s, "127.0.0.1:"+port) // by its number from now on
	mustListen(t, s, "0.0.0.0:"+port)
	if !healthy(t, "127.0.0.2:"+port) {
		t.Error("does not answer on the wider address")
	}
	mustListen(t, s, "127.0.0.1:"+port)
	if !healthy(t, "127.0.0.1:"+port) {
		t.Error("does not answer on the narrower address")
	}
	// Somebody else has the port on another address: so the wider one fails
	// however often the old one makes room.
	other, err := net.Listen("tcp", "127.0.0.3:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := s.SetListen("0.0.0.0:" + port); err == nil {
		t.Error("0.0.0.0 beside another's 127.0.0.3: got no error")
	}
	if !healthy(t, "127.0.0.1:"+port) {
		t.Error("does not answer on the old address after the failure")
	}
}
