package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// leastTunnel is the least that works, a key a line.
const leastTunnel = `[tunnel]
vips = ["198.51.100.1", "2001:db8::c633:6401"]
modes = ["ipip", "ip6ip6"]
`

func TestTunnel(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::c633:6401")}
	for _, c := range []struct {
		text string
		want *Tunnel
	}{
		{"", nil},
		{leastTunnel, &Tunnel{VIPs: vips, Modes: []TunnelMode{ModeIPIP, ModeIP6IP6}, GUEPort: 6080}},
		{`[tunnel]
			vips = ["198.51.100.1", "2001:db8::c633:6401"]
			modes = ["gue", "gre"]
			local = ["192.0.2.139"]
			sources = ["192.0.2.132", "192.0.2.133"]
			gue_port = 6081
			mtu = 1600
			keep_routes = true
		`, &Tunnel{
			VIPs: vips, Modes: []TunnelMode{ModeGUE, ModeGRE},
			Local:   []netip.Addr{netip.MustParseAddr("192.0.2.139")},
			Sources: []netip.Addr{netip.MustParseAddr("192.0.2.132"), netip.MustParseAddr("192.0.2.133")},
			GUEPort: 6081, MTU: 1600, KeepRoutes: true,
		}},
	} {
		cfg, err := ParseLB7("lb7d.toml", []byte(c.text))
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if diff := cmp.Diff(c.want, cfg.Tunnel, same); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, diff)
		}
		if got := strings.Contains(cfg.Parts(), "tunnel"); got != (c.want != nil) {
			t.Errorf("%s: the parts are %q", c.text, cfg.Parts())
		}
	}
}

func TestTunnelFaults(t *testing.T) {
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("%q", netip.AddrFrom4([4]byte{192, 0, byte(i / 256), byte(i)})))
	}
	for _, c := range []struct{ lines, want string }{
		{`vips =`, `lb7d.toml:1: tunnel.vips: is missing; write the addresses that users connect to`},
		{`vips = []`, `lb7d.toml:3: tunnel.vips: the list is empty`},
		{`vips = ["www.example.com"]`, `lb7d.toml:3: tunnel.vips[0]: "www.example.com" is not an IP address`},
		{`vips = ["198.51.100.1/32"]`, `"198.51.100.1/32" has a prefix length; write the address without it`},
		{`vips = ["::ffff:198.51.100.1"]`, `write "198.51.100.1"`},
		{`vips = ["127.0.0.1"]`, `"127.0.0.1" is a loopback address`},
		{`vips = ["fe80::1"]`, `"fe80::1" is a link-local address`},
		{`vips = ["198.51.100.1", "198.51.100.1"]`, `lb7d.toml:3: tunnel.vips[1]: "198.51.100.1" is in the list twice`},
		{`modes =`, `lb7d.toml:1: tunnel.modes: is missing; write what the LB4 hosts send`},
		{`modes = []`, `lb7d.toml:3: tunnel.modes: the list is empty`},
		{`modes = ["vxlan"]`, `lb7d.toml:3: tunnel.modes[0]: "vxlan" is not known; write "ipip", "ip6ip6", "gue" or "gre"`},
		{`modes = ["gre", "gre"]`, `tunnel.modes[1]: "gre" is in the list twice`},
		{`local = []`, `tunnel.local: the list is empty; write addresses, or leave the key out`},
		{`local = ["198.51.100.1"]`, `"198.51.100.1" is one of vips`},
		{`local = ["192.0.2.139"]`, `tunnel.local: has no IPv6 address, which mode "ip6ip6" has in its outer header; add one to local, or take the mode out of modes`},
		{`sources = ["2001:db8::1"]`, `tunnel.sources: has no IPv4 address, which mode "ipip" has`},
		{`sources = [` + strings.Join(many, ", ") + `]`, `there are 300 addresses; write at most 256`},
		{`gue_port = 6080`, `lb7d.toml:4: tunnel.gue_port: has no meaning without "gue" in modes; leave the key out`},
		{"modes = [\"gue\"]\ngue_port = 65536", `65536 is out of range; write 1 to 65535`},
		{`mtu = 500`, `500 is out of range; write 576 to 65535`},
		{`keep_routes = "yes"`, `tunnel.keep_routes: "yes" is a string; write`},
		{`gue_prot = 6080`, `gue_port`},
	} {
		t.Run(c.lines, func(t *testing.T) {
			text := leastTunnel
			key, _, _ := strings.Cut(c.lines, " ")
			for line := range strings.Lines(text) { // instead of the one there is
				if strings.HasPrefix(line, key+" ") {
					text = strings.Replace(text, line, "", 1)
				}
			}
			if !strings.HasSuffix(c.lines, "=") {
				text += c.lines + "\n"
			}
			_, err := ParseLB7("lb7d.toml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
