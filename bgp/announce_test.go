package bgp

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// line is an announcement as one line.
func line(a announcement) string {
	s := fmt.Sprintf("%s via %s", a.Prefix, a.nextHop)
	for _, c := range a.Communities {
		s += fmt.Sprintf(" %d:%d", c>>16, c&0xffff)
	}
	return s
}

func lines(all []announcement) []string {
	var out []string
	for _, a := range all {
		out = append(out, line(a))
	}
	return out
}

// via makes an announcement.
func via(prefix, hop string, communities ...uint32) announcement {
	return announcement{Route{netip.MustParsePrefix(prefix), communities}, netip.MustParseAddr(hop)}
}

func TestDiff(t *testing.T) {
	const v4, v6 = "0.0.0.0", "2001:db8::84"
	for _, test := range []struct {
		name        string
		have, want  []announcement
		add, remove []string
	}{
		{"nothing", nil, nil, nil, nil},
		{
			"from nothing, in order", nil,
			[]announcement{via("198.51.100.2/32", v4), via("2001:db8:1::1/128", v6), via("198.51.100.1/32", v4)},
			[]string{"198.51.100.1/32 via 0.0.0.0", "198.51.100.2/32 via 0.0.0.0", "2001:db8:1::1/128 via 2001:db8::84"}, nil,
		},
		{
			"to nothing", []announcement{via("198.51.100.1/32", v4)}, nil,
			nil, []string{"198.51.100.1/32 via 0.0.0.0"},
		},
		{
			"equal", []announcement{via("198.51.100.1/32", v4, 1, 2)}, []announcement{via("198.51.100.1/32", v4, 1, 2)},
			nil, nil,
		},
		{
			"another community", []announcement{via("198.51.100.1/32", v4)}, []announcement{via("198.51.100.1/32", v4, GracefulShutdown)},
			[]string{"198.51.100.1/32 via 0.0.0.0 65535:0"}, nil,
		},
		{
			"another next hop", []announcement{via("2001:db8:1::1/128", v6)}, []announcement{via("2001:db8:1::1/128", "2001:db8::85")},
			[]string{"2001:db8:1::1/128 via 2001:db8::85"}, nil,
		},
		{
			"another length is another prefix", []announcement{via("198.51.100.0/24", v4)}, []announcement{via("198.51.100.0/25", v4)},
			[]string{"198.51.100.0/25 via 0.0.0.0"}, []string{"198.51.100.0/24 via 0.0.0.0"},
		},
	} {
		add, remove := diff(test.have, test.want)
		if d := cmp.Diff(test.add, lines(add)); d != "" {
			t.Errorf("%s: to add (-want +got):\n%s", test.name, d)
		}
		if d := cmp.Diff(test.remove, lines(remove)); d != "" {
			t.Errorf("%s: to remove (-want +got):\n%s", test.name, d)
		}
	}
}

// What is put into the table reads the same when it is listed: otherwise each
// pass would announce everything anew.
func TestPathRoundTrip(t *testing.T) {
	for _, want := range []announcement{
		via("198.51.100.1/32", "0.0.0.0"),
		via("198.51.100.0/24", "192.0.2.132", 1, GracefulShutdown),
		via("2001:db8:1::1/128", "::"),
		via("2001:db8:1::/48", "2001:db8::84", 65000<<16|100),
		via("0.0.0.0/0", "0.0.0.0"),
		via("::/0", "::"),
	} {
		p, err := want.path()
		if err != nil {
			t.Errorf("%s: %v", line(want), err)
			continue
		}
		got, err := announcementOf(p.Nlri, p)
		if err != nil || !got.equal(want) {
			t.Errorf("got %s, error %v, want %s", line(got), err, line(want))
		}
	}
}

func TestCanonicalRoutes(t *testing.T) {
	got, err := canonicalRoutes([]Route{{netip.MustParsePrefix("198.51.100.1/32"), []uint32{3, 1, 3}}, {Prefix: netip.MustParsePrefix("::/0")}})
	if err != nil || len(got) != 2 || !cmp.Equal(got[0].Communities, []uint32{1, 3}) {
		t.Errorf("got %v, error %v", got, err)
	}
	for _, test := range []struct {
		routes []Route
		want   string
	}{
		{[]Route{{}}, "announcing BGP route invalid Prefix: not a prefix"},
		{[]Route{{Prefix: netip.MustParsePrefix("198.51.100.1/24")}}, "announcing BGP route 198.51.100.1/24: not a prefix"},
		{prefixes("198.51.100.1/32", "198.51.100.1/32"), "announcing BGP route 198.51.100.1/32: given twice"},
	} {
		if _, err := canonicalRoutes(test.routes); err == nil || err.Error() != test.want {
			t.Errorf("got error %v, want %s", err, test.want)
		}
	}
}
