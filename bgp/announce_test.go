package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// line is an announcement as one line.
func line(a announcement) string { return fmt.Sprintf("%s via %s", a.Route, a.hop) }

func lines(all []announcement) []string {
	var out []string
	for _, a := range all {
		out = append(out, line(a))
	}
	return out
}

// via makes an announcement.
func via(prefix, hop string, communities ...uint32) announcement {
	return announcement{Route: with(prefix, Attributes{Communities: communities}), hop: netip.MustParseAddr(hop)}
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
			[]string{"198.51.100.1/32 communities 65535:0 via 0.0.0.0"}, nil,
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

// told is an announcement with a fingerprint.
func told(prefix string, fingerprint uint32, a Attributes) announcement {
	r := with(prefix, a).canonical()
	r.Fingerprint = &fingerprint
	return announcement{Route: r, hop: netip.MustParseAddr("192.0.2.7"), tags: Options{AS: 65000, RouterID: netip.MustParseAddr("192.0.2.132")}.tags(&fingerprint)}
}

// What is put into the table reads the same when it is listed: otherwise each
// pass would announce everything anew.
func TestPathRoundTrip(t *testing.T) {
	for _, want := range []announcement{
		via("198.51.100.1/32", "0.0.0.0"),
		via("198.51.100.0/24", "192.0.2.132", 1, 2),
		{Route: draining("198.51.100.0/24"), hop: netip.IPv4Unspecified()},
		{Route: with("198.51.100.1/32", everything()).canonical(), hop: netip.MustParseAddr("192.0.2.7")},
		{Route: with("2001:db8:1::1/128", everything()).canonical(), hop: netip.MustParseAddr("2001:db8::7")},
		{Route: with("198.51.100.1/32", nothing()), hop: netip.IPv4Unspecified()},
		via("2001:db8:1::1/128", "::"),
		via("2001:db8:1::/48", "2001:db8::84", 65000<<16|100),
		via("0.0.0.0/0", "0.0.0.0"),
		told("198.51.100.1/32", 0xfeedface, Attributes{}),
		told("198.51.100.1/32", 0, everything()),
		told("198.51.100.1/32", 1, nothing()),
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
	got, err := canonicalRoutes([]Route{
		with("198.51.100.1/32", Attributes{Communities: []uint32{3, 1, 3}, LargeCommunities: [][3]uint32{{2, 0, 1}, {1, 9, 9}, {2, 0, 1}}}),
		with("198.51.100.2/32", Attributes{Communities: []uint32{GracefulShutdown}}),
		{Prefix: netip.MustParsePrefix("::/0")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{
		with("198.51.100.1/32", Attributes{Communities: []uint32{1, 3}, LargeCommunities: [][3]uint32{{1, 9, 9}, {2, 0, 1}}}),
		{Prefix: netip.MustParsePrefix("198.51.100.2/32"), Attributes: Attributes{Communities: []uint32{}}, Draining: true},
		{Prefix: netip.MustParsePrefix("::/0")},
	}
	if !slices.EqualFunc(got, want, Route.equal) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, test := range []struct {
		routes []Route
		want   string
	}{
		{[]Route{{}}, "announcing BGP route invalid Prefix: not a prefix"},
		{[]Route{{Prefix: netip.MustParsePrefix("198.51.100.1/24")}}, "announcing BGP route 198.51.100.1/24: not a prefix"},
		{prefixes("198.51.100.1/32", "198.51.100.1/32"), "announcing BGP route 198.51.100.1/32: given twice"},
		{[]Route{with("198.51.100.1/32", Attributes{LocalPreference: new(uint32(0))})}, "announcing BGP route 198.51.100.1/32: local preference 0 is not possible"},
		{[]Route{with("198.51.100.1/32", Attributes{Prepend: new(17)})}, "announcing BGP route 198.51.100.1/32: prepending 17 times is not between 0 and 16"},
		{[]Route{with("198.51.100.1/32", Attributes{NextHop4: netip.MustParseAddr("::1")})}, "announcing BGP route 198.51.100.1/32: ::1 is no IPv4 next hop"},
		{[]Route{with("198.51.100.1/32", Attributes{NextHop6: netip.MustParseAddr("fe80::1")})}, "announcing BGP route 198.51.100.1/32: fe80::1 is no IPv6 next hop"},
	} {
		if _, err := canonicalRoutes(test.routes); err == nil || err.Error() != test.want {
			t.Errorf("got error %v, want %s", err, test.want)
		}
	}
}
