package bgp

import (
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
