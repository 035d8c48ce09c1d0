package load

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	proxyPrefix = "PROXY "
	// maxProxyLine is the longest version 1 header with its CRLF, section
	// 2.1 of HAProxy's proxy-protocol.txt.
	maxProxyLine = 107
)

func errProxy(line []byte) error { return fmt.Errorf("reading the PROXY header: %.120q", line) }

// parseProxy reads a version 1 header line: the client, the zero value where
// the proxy does not know it (UNKNOWN) or speaks for itself.
func parseProxy(line []byte) (client netip.AddrPort, err error) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || len(line) > maxProxyLine {
		return client, errProxy(line)
	}
	f := strings.Split(text, " ")
	if len(f) >= 2 && f[0] == "PROXY" && f[1] == "UNKNOWN" {
		return client, nil
	}
	if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" && f[1] != "TCP6" {
		return client, errProxy(line)
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		a, err := netip.ParseAddr(f[2+i])
		if err != nil || a.Is4() != (f[1] == "TCP4") || a.Zone() != "" {
			return client, errProxy(line)
		}
		port, err := strconv.ParseUint(f[4+i], 10, 16)
		if err != nil {
			return client, errProxy(line)
		}
		ends[i] = netip.AddrPortFrom(a, uint16(port))
	}
	return ends[0], nil
}
