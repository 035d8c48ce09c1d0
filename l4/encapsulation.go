package l4

// Encapsulation is the tunnel through which packets travel to a destination.
// The outer header is of the family of the destination's address, whatever
// that of the VIP: ipip is IPv4 in IPv4 (RFC 2003), IPv6 in IPv4 (RFC 4213) or
// ip6ip6 (RFC 2473).
type Encapsulation uint8

// The encapsulations. GUE and GRE exist since Linux 5.3.
const (
	// None: routed, translated or local; somebody else's.
	None Encapsulation = iota
	IPIP
	// GUE is Generic UDP Encapsulation (draft-ietf-intarea-gue) to the
	// destination's GUEPort.
	GUE
	// GRE is Generic Routing Encapsulation (RFC 2784).
	GRE
)

// DefaultGUEPort is the port that IANA has assigned to GUE.
const DefaultGUEPort = 6080

// String is none, ipip, gue or gre.
func (e Encapsulation) String() string {
	return [...]string{"none", "ipip", "gue", "gre"}[e]
}

// Overhead is what the encapsulation adds to a packet, in bytes: the outer IP
// header, and what is between that and the packet (ip_vs_xmit.c,
// __ip_vs_get_out_rt, without checksums). It tells nothing of None.
func (e Encapsulation) Overhead(ipv6 bool) int {
	outer := 20
	if ipv6 {
		outer = 40
	}
	switch e {
	case GUE:
		return outer + 8 + 4 // UDP, and GUE without options
	case GRE:
		return outer + 4
	}
	return outer
}
