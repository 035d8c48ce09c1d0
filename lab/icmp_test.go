package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// procEnd writes an address as /proc/net/tcp does on this machine.
func procEnd(a netip.AddrPort) string {
	var s string
	raw := a.Addr().AsSlice()
	for i := 0; i < len(raw); i += 4 {
		s += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(raw[i:]))
	}
	return fmt.Sprintf("%s:%04X", s, a.Port())
}

func TestParseConnections(t *testing.T) {
	user, vip := netip.MustParseAddrPort("203.0.113.7:40001"), netip.MustParseAddrPort("198.51.100.1:80")
	user6, vip6 := netip.MustParseAddrPort("[2001:db8::cb00:7107]:40002"), netip.MustParseAddrPort("[2001:db8::c633:6401]:80")
	text := "  sl  local_address rem_address   st tx_queue rx_queue\n" +
		"   0: " + procEnd(user) + " " + procEnd(vip) + " 01 00000000:00000000 00:00000000 00000000     0        0 1 1\n" +
		"   1: " + procEnd(vip) + " " + procEnd(netip.MustParseAddrPort("0.0.0.0:0")) + " 0A 00000000:00000000 00:00000000\n" +
		"   2: " + procEnd(user6) + " " + procEnd(vip6) + " 01 00000000:00000000 00:00000000\n"
	got, err := parseConnections(text)
	want := []connection{{user, vip}, {user6, vip6}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(connection{}), cmpopts.EquateComparable(netip.AddrPort{})); err != nil || diff != "" {
		t.Errorf("%v, connections (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"zz:0050", "0100007F", "0100007F:10000", "01:0050"} {
		if _, err := parseConnections("head\n 0: " + bad + " " + bad + " 01\n"); err == nil {
			t.Errorf("%q was taken for an address", bad)
		}
	}
}

func TestTooBig(t *testing.T) {
	user, vip := netip.MustParseAddrPort("203.0.113.7:40001"), netip.MustParseAddrPort("198.51.100.1:80")
	m := tooBig(vip, user)
	// A checksum over what has a right one is 0 (RFC 1071).
	if len(m) != 8+20+20 || checksum(m) != 0 || checksum(m[8:28]) != 0 {
		t.Errorf("%d bytes, checksums %#x and %#x", len(m), checksum(m), checksum(m[8:28]))
	}
	if src, _ := netip.AddrFromSlice(m[20:24]); src != vip.Addr() || binary.BigEndian.Uint16(m[28:]) != 80 || binary.BigEndian.Uint16(m[30:]) != 40001 {
		t.Errorf("the packet quoted is % x", m[8:])
	}
	user6, vip6 := netip.MustParseAddrPort("[2001:db8::cb00:7107]:40002"), netip.MustParseAddrPort("[2001:db8::c633:6401]:80")
	m = tooBig(vip6, user6)
	if src, _ := netip.AddrFromSlice(m[16:32]); len(m) != 8+40+20 || m[0] != 2 || src != vip6.Addr() || binary.BigEndian.Uint16(m[50:]) != 40002 {
		t.Errorf("the message is % x", m)
	}
}

func TestParseCounter(t *testing.T) {
	text := "TcpExt: SyncookiesSent OutOfWindowIcmps\nTcpExt: 3 17\nIpExt: InNoRoutes\nIpExt: 5\n"
	if n, err := parseCounter(text, "TcpExt", "OutOfWindowIcmps"); err != nil || n != 17 {
		t.Errorf("%d, %v; want 17", n, err)
	}
	if _, err := parseCounter(text, "IpExt", "OutOfWindowIcmps"); err == nil {
		t.Error("a counter was found that is not there")
	}
}
