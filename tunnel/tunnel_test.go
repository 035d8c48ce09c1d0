package tunnel

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addrs parses addresses separated by blanks.
func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

func TestDiffAddresses(t *testing.T) {
	tests := []struct {
		name, listed, wanted string
		want                 []string
	}{
		{name: "nothing"},
		{name: "all there, in another order", listed: "198.51.100.1 2001:db8::1", wanted: "2001:db8::1 198.51.100.1"},
		{
			name:   "wanted by two services",
			wanted: "198.51.100.1 2001:db8::1 198.51.100.1",
			want:   []string{"add address 198.51.100.1/32 to lb-vips", "add address 2001:db8::1/128 to lb-vips"},
		},
		{
			name:   "one comes, one stays, one goes",
			listed: "198.51.100.1 2001:db8::1", wanted: "198.51.100.2 2001:db8::1",
			want: []string{"add address 198.51.100.2/32 to lb-vips", "remove address 198.51.100.1/32 from lb-vips"},
		},
		{name: "none wanted", listed: "2001:db8::1", want: []string{"remove address 2001:db8::1/128 from lb-vips"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, op := range DiffAddresses(addrs(tt.listed), addrs(tt.wanted)) {
				got = append(got, op.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
		})
	}
}
