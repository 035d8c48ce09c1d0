package lab

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// connection is one end of a TCP connection, as a host has it.
type connection struct{ local, remote netip.AddrPort }

// established is the state in /proc/net/tcp (include/net/tcp_states.h).
const established = "01"

// parseConnections reads the established connections of /proc/net/tcp or
// tcp6 (tcp_ipv4.c, get_tcp4_sock): addresses are 32-bit words in the byte order
// of the host, ports are not.
func parseConnections(text string) ([]connection, error) {
	var all []connection
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != established {
			continue
		}
		local, err := parseEnd(f[1])
		if err != nil {
			return nil, err
		}
		remote, err := parseEnd(f[2])
		if err != nil {
			return nil, err
		}
		all = append(all, connection{local, remote})
	}
	return all, nil
}

func parseEnd(s string) (netip.AddrPort, error) {
	words, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(words)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("reading a connection: %q is no address", s)
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	a, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("reading a connection: %q is no address with a port", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// narrow is the MTU that the lab's crafted errors tell of.
const narrow = 1400

// tooBig is the ICMP message with which a router on the way to the user says that
// a packet from the VIP does not fit: fragmentation needed (RFC 1191 section
// 4) or packet too big (RFC 4443 section 3.2). It quotes the packet's
// beginning, with a sequence number of 0, which is outside of the window of
// almost any connection: so the host counts it and believes none of it. The
// checksum is there for IPv4 only; the kernel fills in that of IPv6.
func tooBig(vip, client netip.AddrPort) []byte {
	var m []byte
	quote := make([]byte, 20) // TCP; only ports and sequence number are looked at
	binary.BigEndian.PutUint16(quote[0:], vip.Port())
	binary.BigEndian.PutUint16(quote[2:], client.Port())
	quote[12] = 5 << 4
	const tcp = 6
	if vip.Addr().Is4() {
		m = []byte{3, 4, 0, 0, 0, 0, narrow >> 8, narrow & 0xff}
		head := []byte{0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 60, tcp, 0, 0}
		head = append(append(head, vip.Addr().AsSlice()...), client.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(head[10:], checksum(head))
		m = append(append(m, head...), quote...)
		binary.BigEndian.PutUint16(m[2:], checksum(m))
		return m
	}
	m = []byte{2, 0, 0, 0, 0, 0, narrow >> 8, narrow & 0xff}
	head := []byte{0x60, 0, 0, 0, 0x05, 0xb4, tcp, 60}
	head = append(append(head, vip.Addr().AsSlice()...), client.Addr().AsSlice()...)
	return append(append(m, head...), quote...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// parseCounter reads one counter of /proc/net/netstat, where a line of names is
// followed by one of values.
func parseCounter(text, group, name string) (int, error) {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if len(names) == 0 || names[0] != group+":" {
			continue
		}
		if at := slices.Index(names, name); at > 0 && at < len(values) {
			return strconv.Atoi(values[at])
		}
	}
	return 0, fmt.Errorf("reading counters: there is no %s of %s", name, group)
}
