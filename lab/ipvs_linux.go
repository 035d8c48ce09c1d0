package lab

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Destination is one line of a host's IPVS table: where the flows of a service
// go.
type Destination struct {
	VIP     netip.AddrPort
	Member  netip.AddrPort
	Forward string // Tunnel, Route, Masq, Local
	Weight  int
	// Active and Inactive count the flows in the host's table.
	Active, Inactive int
}

// ipvsTable is where the kernel writes the table of the calling thread's
// network. It is read rather than asked for over netlink so that the lab does
// not share its view, and its mistakes, with the daemon under test.
const ipvsTable = "/proc/thread-self/net/ip_vs"

// parseIPVS reads the kernel's text (ip_vs_ctl.c, ip_vs_info_seq_show).
func parseIPVS(text string) ([]Destination, error) {
	var all []Destination
	var vip netip.AddrPort
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 3 && (fields[0] == "TCP" || fields[0] == "UDP"):
			var err error
			if vip, err = parseHexAddrPort(fields[1]); err != nil {
				return nil, err
			}
		case len(fields) == 6 && fields[0] == "->" && fields[1] != "RemoteAddress:Port":
			d := Destination{VIP: vip, Forward: fields[2]}
			var err error
			if d.Member, err = parseHexAddrPort(fields[1]); err != nil {
				return nil, err
			}
			for i, n := range []*int{&d.Weight, &d.Active, &d.Inactive} {
				if *n, err = strconv.Atoi(fields[3+i]); err != nil {
					return nil, fmt.Errorf("reading the IPVS table: %q: %w", lines.Text(), err)
				}
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// parseHexAddrPort reads C6336401:0050 and [2001:0db8::1]:0050.
func parseHexAddrPort(s string) (netip.AddrPort, error) {
	fault := func(err error) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("reading the IPVS table: address %q: %w", s, err)
	}
	host, hexPort := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, hexPort = s[:i], s[i+1:]
	}
	port, err := strconv.ParseUint(hexPort, 16, 16)
	if err != nil {
		return fault(err)
	}
	if v6, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(v6, "]"))
		if err != nil {
			return fault(err)
		}
		return netip.AddrPortFrom(a, uint16(port)), nil
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return fault(err)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return fault(fmt.Errorf("%d octets", len(b)))
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// IPVS reads a host's IPVS table, in the kernel's order.
func (l *Lab) IPVS(host string) ([]Destination, error) {
	p, err := l.place(host)
	if err != nil {
		return nil, err
	}
	var text []byte
	err = p.do(func() (err error) {
		text, err = os.ReadFile(ipvsTable)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the IPVS table of %s: %w", host, err)
	}
	return parseIPVS(string(text))
}
