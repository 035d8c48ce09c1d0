package bgp

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// What cannot be read ends the session with a NOTIFICATION, and GoBGP reads
// nothing of it.
func TestConnectionRefuses(t *testing.T) {
	header := func(length int, kind byte) []byte {
		return append(slices.Clone(marker16), byte(length>>8), byte(length), kind)
	}
	for _, test := range []struct {
		name   string
		sent   []byte
		told   []byte
		reason string
	}{
		{"no marker", make([]byte, headerLength), []byte{1, 1}, "message header error/connection not synchronized"},
		{"a length of 18", header(18, bgp.BGP_MSG_KEEPALIVE), []byte{1, 2, 0, 18}, "message header error/bad message length"},
		{"a KEEPALIVE of 20 bytes", append(header(20, bgp.BGP_MSG_KEEPALIVE), 0), []byte{1, 2, 0, 20}, "message header error/bad message length"},
		{"an OPEN of 5000 bytes", header(5000, bgp.BGP_MSG_OPEN), []byte{1, 2, 5000 >> 8, 5000 & 0xff}, "message header error/bad message length"},
		{"another type", header(headerLength, 9), []byte{1, 3, 9}, "message header error/bad message type"},
		{"a short OPEN", frame(bgp.BGP_MSG_OPEN, make([]byte, 9)), []byte{2, 0}, "OPEN message error"},
		{"an OPEN with fewer parameters than it says", frame(bgp.BGP_MSG_OPEN, []byte{4, 0, 1, 0, 90, 1, 1, 1, 1, 4, 2, 0}), []byte{2, 0}, "OPEN message error"},
		{"a capability that leaves its parameter", frame(bgp.BGP_MSG_OPEN, []byte{4, 0, 1, 0, 90, 1, 1, 1, 1, 4, 2, 2, 1, 4}), []byte{2, 0}, "OPEN message error"},
		{"half a capability", frame(bgp.BGP_MSG_OPEN, []byte{4, 0, 1, 0, 90, 1, 1, 1, 1, 3, 2, 1, 1}), []byte{2, 0}, "OPEN message error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, far := pair(t)
			if _, err := far.Write(test.sent); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 100)); n != 0 || err == nil {
				t.Errorf("read %d bytes, error %v", n, err)
			}
			if want := "closed by us: " + test.reason; c.reason() != want {
				t.Errorf("reason %s, want %s", c.reason(), want)
			}
			_ = c.Close()
			told, _ := io.ReadAll(far)
			if diff := cmp.Diff(frame(bgp.BGP_MSG_NOTIFICATION, test.told), told); diff != "" {
				t.Errorf("the peer was told (-want +got):\n%s", diff)
			}
		})
	}
}

// Of an OPEN GoBGP sees what it uses, well-formed and once.
func TestParseOpen(t *testing.T) {
	fixed := []byte{4, 0x5b, 0xa0, 0, 90, 192, 0, 2, 1}
	capability := func(code byte, value ...byte) []byte { return append([]byte{code, byte(len(value))}, value...) }
	params := func(capabilities ...[]byte) []byte {
		value := slices.Concat(capabilities...)
		return append([]byte{2, byte(len(value))}, value...)
	}
	body := func(params ...byte) []byte { return append(append(slices.Clone(fixed), byte(len(params))), params...) }
	v4, v6, evpn := capability(1, 0, 1, 0, 1), capability(1, 0, 2, 0, 1), capability(1, 0, 25, 0, 70)
	as4 := capability(65, 0, 1, 0, 0)
	both := []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}
	for _, test := range []struct {
		name     string
		body     []byte
		as       uint32
		families []bgp.Family
		clean    []byte
	}{
		{"nothing", body(), 23456, both[:1], body()},
		{"what is used", body(params(v4, v6, as4, capability(2), capability(6))...), 65536, both,
			body(params(v4, v6, as4, capability(2), capability(6))...)},
		{"in several parameters", body(slices.Concat(params(v4), params(v6), params(as4))...), 65536, both, body(params(v4, v6, as4)...)},
		{"in the long form", append(append(slices.Clone(fixed), 255, 255, 0, 9), append([]byte{2, 0, 6}, v4...)...), 23456, both[:1], body(params(v4)...)},
		{"twice", body(params(v4, v4, as4, as4, capability(2), capability(2))...), 65536, both[:1], body(params(v4, as4, capability(2))...)},
		{"another family alone", body(params(evpn)...), 23456, []bgp.Family{bgp.RF_EVPN}, body(params(evpn)...)},
		{"another family first", body(params(evpn, v4)...), 23456, []bgp.Family{bgp.RF_EVPN, bgp.RF_IPv4_UC}, body(params(evpn, v4)...)},
		{"wrong in themselves", body(params(capability(1, 0), capability(65, 1), capability(2, 0), capability(64, 1), capability(69, 1, 2))...),
			23456, both[:1], body()},
		{"unknown ones", body(params(capability(73, 1, 'a', 0), capability(128), capability(250, 1, 2, 3))...), 23456, both[:1], body()},
		{"graceful restart", body(params(capability(64, 0x80, 120, 0, 1, 1, 0x80, 0, 25, 70, 0, 0, 1, 1, 0))...), 23456, both[:1],
			body(params(capability(64, 0, 0))...)},
		{"add-path", body(params(capability(69, 0, 1, 1, 3, 0, 1, 128, 3))...), 23456, both[:1], body(params(capability(69, 0, 1, 1, 3))...)},
		{"route refresh", body(params(capability(2))...), 23456, both[:1], body(params(capability(2))...)},
		{"a parameter of another kind", body(1, 2, 0, 0), 23456, both[:1], body()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseOpen(test.body)
			if !ok {
				t.Fatal("not ok")
			}
			want := opening{as: test.as, families: test.families, gracefulRestart: test.name == "graceful restart", clean: test.clean}
			// What else it says is in what GoBGP sees of it.
			if bytes.Contains(want.clean, []byte{69, 4, 0, 1, 1, 3}) {
				want.sends, want.takes = IPv4, IPv4
			}
			want.refreshes = slices.Contains([]string{"what is used", "twice", "route refresh"}, test.name)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(opening{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, err := bgp.ParseBGPMessage(frame(bgp.BGP_MSG_OPEN, got.clean)); err != nil {
				t.Errorf("GoBGP: %v", err)
			}
		})
	}
}

// A peer that asks for the table again and again gets it so many times.
func TestRefreshesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{}
		passed := func(n int) (passed int) {
			for range n {
				if c.mayRefresh() {
					passed++
				}
			}
			return passed
		}
		if got := passed(1000); got != refreshBurst {
			t.Errorf("%d passed at once, want %d", got, refreshBurst)
		}
		time.Sleep(5 * time.Second)
		if got := passed(1000); got != 5 {
			t.Errorf("%d passed after 5 s, want 5", got)
		}
		time.Sleep(time.Hour)
		if got := passed(1000); got != refreshBurst {
			t.Errorf("%d passed after an hour, want %d", got, refreshBurst)
		}
	})
}

// Whatever a peer sends, GoBGP is given nothing but well-formed messages, of
// the few sorts that it is to see, and no more of them than were sent.
func FuzzConnection(f *testing.F) {
	for _, seed := range crafted() {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, sent []byte, established bool) {
		if len(sent) > 1<<17 {
			return
		}
		c, far := pair(t)
		if established {
			c.state = stateEstablished
		}
		go func() {
			_, _ = far.Write(sent)
			_ = far.CloseWrite()
		}()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		var given [][]byte
		for {
			message, err := read(c)
			if err != nil {
				break
			}
			given = append(given, message)
		}
		if len(given) > len(sent)/headerLength {
			t.Fatalf("%d messages of %d bytes", len(given), len(sent))
		}
		for _, message := range given {
			if !bytes.HasPrefix(message, marker16) || len(message) > 512 {
				t.Fatalf("given %x", message)
			}
			m, err := bgp.ParseBGPMessage(message)
			if err != nil {
				t.Fatalf("given %x: %v", message, err)
			}
			switch b := m.Body.(type) {
			case *bgp.BGPUpdate:
				if len(b.WithdrawnRoutes)+len(b.NLRI) > 0 || len(b.PathAttributes) > 1 {
					t.Fatalf("given an UPDATE: %x", message)
				}
			case *bgp.BGPOpen:
				for _, p := range b.OptParams {
					if c, ok := p.(*bgp.OptionParameterCapability); !ok || len(c.Capability) > 12 {
						t.Fatalf("given an OPEN: %x", message)
					}
				}
			}
		}
		if reason := c.reason(); strings.ContainsAny(reason, "\x00\n\x1b") {
			t.Fatalf("reason %q", reason)
		}
	})
}
