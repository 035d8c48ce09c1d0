package bgp

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Each change is told once, and an outage counts from its beginning.
func TestSessionTellsChanges(t *testing.T) {
	book, changes := &logbook{}, 0
	s := newSession(nil, nil, book.logger(slog.LevelInfo), func() { changes++ },
		Peer{Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), AS: 65000}, false)
	begun := s.since

	s.down(slog.LevelWarn, "connection refused")
	s.down(slog.LevelWarn, "connection refused")
	s.down(slog.LevelWarn, "no route to host")
	if p, _ := s.status(); p.State != stateConnect || p.Since != begun || p.LastError != "no route to host" {
		t.Errorf("%+v", p)
	}
	s.set(stateOpenSent)
	s.set(stateOpenConfirm)
	s.down(slog.LevelWarn, "peer closed: OPEN message error/bad peer AS")
	if p, _ := s.status(); p.State != stateConnect || p.Since != begun {
		t.Errorf("%+v", p)
	}
	s.up([]bgp.Family{bgp.RF_IPv4_UC})
	if p, f := s.status(); p.State != stateEstablished || p.Since == begun || p.LastError != "" || len(f) != 1 {
		t.Errorf("%+v", p)
	}
	s.down(slog.LevelWarn, "connection refused")
	if p, f := s.status(); p.State != stateConnect || p.Since == begun || len(f) != 0 {
		t.Errorf("%+v", p)
	}
	want := `level=WARN msg="bgp session not up" as=65000 reason="connection refused"
level=WARN msg="bgp session not up" as=65000 reason="no route to host"
level=WARN msg="bgp session not up" as=65000 reason="peer closed: OPEN message error/bad peer AS"
level=INFO msg="bgp session up" as=65000 families=ipv4-unicast
level=WARN msg="bgp session down" as=65000 reason="connection refused"
`
	if diff := cmp.Diff(want, book.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if changes != 5 {
		t.Errorf("%d changes told, want 5", changes)
	}
}
