package bgp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// listener is a reader that writes down what it is told.
type listener []string

func (r *listener) announced(_ bgp.Family, prefix []byte, host netip.Addr, id uint32, said heard) {
	line := fmt.Sprintf("+ /%d", prefix[0])
	if host.IsValid() {
		line = fmt.Sprintf("+ %s id %d via %s", host, id, said.hop)
		if said.originator.IsValid() {
			line += " of " + said.originator.String()
		}
		if said.router.IsValid() {
			line += " by " + said.router.String()
		}
		if said.marked {
			line += fmt.Sprintf(" fingerprint %08x", said.fingerprint)
		}
		if said.draining {
			line += " draining"
		}
	}
	*r = append(*r, line)
}

func (r *listener) withdrawn(host netip.Addr, id uint32) {
	*r = append(*r, fmt.Sprintf("- %s id %d", host, id))
}

// attribute is a path attribute, and updateBody the body of an UPDATE.
func attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

func updateBody(withdrawn, nlri []byte, attributes ...[]byte) []byte {
	all := slices.Concat(attributes...)
	b := append(binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn))), withdrawn...)
	return slices.Concat(binary.BigEndian.AppendUint16(b, uint16(len(all))), all, nlri)
}

// large are large communities as an attribute.
func large(all ...[3]uint32) []byte {
	var value []byte
	for _, c := range all {
		for _, word := range c {
			value = binary.BigEndian.AppendUint32(value, word)
		}
	}
	return attribute(0xc0, 32, value...)
}

func TestReadUpdate(t *testing.T) {
	hop, origin := attribute(0x40, 3, 192, 0, 2, 133), attribute(0x40, 1, 0)
	vip := []byte{32, 198, 51, 100, 1}
	vip6 := append([]byte{128}, netip.MustParseAddr("2001:db8:1::1").AsSlice()...)
	hop6 := netip.MustParseAddr("2001:db8::85").AsSlice()
	id := func(n byte, prefix []byte) []byte { return append([]byte{0, 0, 0, n}, prefix...) }
	reach := func(hops []byte, list ...byte) []byte {
		return attribute(0x80, 14, slices.Concat([]byte{0, 2, 1, byte(len(hops))}, hops, []byte{0}, list)...)
	}
	for _, test := range []struct {
		name       string
		identified Families
		body       []byte
		want       []string
		wrong      bool
	}{
		{name: "a path", body: updateBody(nil, vip, origin, hop), want: []string{"+ 198.51.100.1 id 0 via 192.0.2.133"}},
		{name: "paths with identifiers", identified: IPv4,
			body: updateBody(id(7, vip), slices.Concat(id(1, vip), id(2, []byte{24, 203, 0, 113})), hop),
			want: []string{"- 198.51.100.1 id 7", "+ 198.51.100.1 id 1 via 192.0.2.133", "+ /24"}},
		{name: "what is said of it",
			body: updateBody(nil, vip, hop, attribute(0xc0, 8, 0xfd, 0xe8, 0, 100, 0xff, 0xff, 0, 0), attribute(0x80, 9, 192, 0, 2, 9),
				large([3]uint32{65000, 1, 2}, [3]uint32{65000, FingerprintTag, 0xfeed}, [3]uint32{65000, RouterTag, 0xc0000285})),
			want: []string{"+ 198.51.100.1 id 0 via 192.0.2.133 of 192.0.2.9 by 192.0.2.133 fingerprint 0000feed draining"}},
		{name: "IPv6", body: updateBody(nil, nil, reach(hop6, vip6...)), want: []string{"+ 2001:db8:1::1 id 0 via 2001:db8::85"}},
		{name: "IPv6 with a link-local next hop besides", identified: IPv6,
			body: updateBody(nil, nil, reach(slices.Concat(hop6, netip.MustParseAddr("fe80::85").AsSlice()), id(3, vip6)...)),
			want: []string{"+ 2001:db8:1::1 id 3 via 2001:db8::85"}},
		{name: "IPv6 withdrawn", body: updateBody(nil, nil, attribute(0x80, 15, append([]byte{0, 2, 1}, vip6...)...)),
			want: []string{"- 2001:db8:1::1 id 0"}},
		{name: "another family", body: updateBody(nil, nil, attribute(0x80, 14, 0, 25, 70, 4, 1, 2, 3, 4, 0, 1, 2, 3))},
		{name: "the first of two counts", body: updateBody(nil, vip, hop, attribute(0x40, 3, 192, 0, 2, 200)),
			want: []string{"+ 198.51.100.1 id 0 via 192.0.2.133"}},
		{name: "a next hop of no bytes", body: updateBody(nil, nil, reach(nil, vip6...)), want: []string{"+ 2001:db8:1::1 id 0 via invalid IP"}},
		{name: "a next hop of two bytes", body: updateBody(nil, vip, attribute(0x40, 3, 192, 0)), want: []string{"+ 198.51.100.1 id 0 via invalid IP"}},
		{name: "a large community and a half", body: updateBody(nil, vip, hop, attribute(0xc0, 32, slices.Concat(large([3]uint32{65000, FingerprintTag, 1})[3:], []byte{1, 2})...)),
			want: []string{"+ 198.51.100.1 id 0 via 192.0.2.133 fingerprint 00000001"}},
		{name: "an attribute that is too long withdraws", body: updateBody(nil, vip, hop, []byte{0xc0, 8, 200, 1}),
			want: []string{"- 198.51.100.1 id 0"}, wrong: true},
		{name: "a prefix of 33 bits", body: updateBody(nil, append([]byte{33}, vip...), hop), wrong: true},
		{name: "half a prefix", body: updateBody(nil, vip[:3], hop), wrong: true},
		{name: "half an identifier", identified: IPv4, body: updateBody(nil, []byte{0, 0}, hop), wrong: true},
		{name: "an identifier alone", identified: IPv4, body: updateBody(nil, []byte{0, 0, 0, 1}, hop), wrong: true},
		{name: "nothing", wrong: true},
		{name: "withdrawals that are too long", body: []byte{0xff, 0xff}, wrong: true},
		{name: "attributes that are too long", body: []byte{0, 0, 0xff, 0xff}, wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got listener
			ok := readUpdate(test.body, func(f bgp.Family) bool { return familyBits(f)&test.identified != 0 }, &got)
			if diff := cmp.Diff(test.want, []string(got)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if ok == test.wrong {
				t.Errorf("ok is %v", ok)
			}
		})
	}
}

// Whatever the bytes are, reading them ends, and what is told of has been in
// them: no more prefixes than bytes.
func FuzzReadUpdate(f *testing.F) {
	for _, message := range crafted() {
		if len(message) > headerLength {
			f.Add(message[headerLength:], byte(0))
			f.Add(message[headerLength:], byte(IPv4|IPv6))
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		f.Add(randomUpdate(random)[headerLength:], byte(random.Uint32()))
	}
	f.Fuzz(func(t *testing.T, body []byte, identified byte) {
		var got listener
		readUpdate(body, func(f bgp.Family) bool { return familyBits(f)&Families(identified) != 0 }, &got)
		if len(got) > len(body) {
			t.Errorf("%d prefixes in %d bytes", len(got), len(body))
		}
	})
}

func BenchmarkReadUpdate(b *testing.B) {
	var nlri []byte
	for i := range 900 {
		nlri = append(nlri, 24, 10, byte(i>>8), byte(i))
	}
	body := updateBody(nil, nlri, attribute(0x40, 1, 0), attribute(0x40, 2, 2, 1, 0, 0, 0xfd, 0xe8), attribute(0x40, 3, 192, 0, 2, 1))
	src := newSiblings(netip.MustParseAddr("192.0.2.132"), func() {}).open(netip.Addr{}, netip.Addr{}, 10000, nil)
	b.ReportAllocs()
	for b.Loop() {
		src.read(body, 0)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/900, "ns/prefix")
}
