package load

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxSources bounds what a prefix is expanded to.
const maxSources = 1 << 16

// ParseSources reads addresses and prefixes, separated by commas or space. A
// prefix stands for its hosts: in IPv4 all but the first and the last address,
// in IPv6 all but the first (RFC 4291 2.6.1); of a large one, the first 65,536.
func ParseSources(s string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		if a, err := netip.ParseAddr(word); err == nil {
			out = append(out, a.Unmap())
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("reading the source addresses: %q is no address and no prefix", word)
		}
		out = append(out, expand(p.Masked(), maxSources-len(out))...)
	}
	return out, nil
}

// expand lists the hosts of a prefix, at most a number of them.
func expand(p netip.Prefix, limit int) []netip.Addr {
	hostBits := p.Addr().BitLen() - p.Bits()
	var out []netip.Addr
	for a := p.Addr(); p.Contains(a) && len(out) <= limit; a = a.Next() {
		out = append(out, a)
	}
	if hostBits > 1 && len(out) > 1 {
		out = out[1:]
		if p.Addr().Is4() && !p.Contains(out[len(out)-1].Next()) {
			out = out[:len(out)-1]
		}
	}
	return slices.Clip(out[:min(len(out), max(0, limit))])
}
