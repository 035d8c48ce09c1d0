package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPath is the longest path of a file, in bytes (PATH_MAX of
	// linux/limits.h, less the NUL).
	maxPath = 4095
	// maxSocket is the longest path of a unix socket, in bytes (sun_path of
	// linux/un.h, less the NUL).
	maxSocket = 107
	// maxGroup is the longest name of a group (LOGIN_NAME_MAX of glibc).
	maxGroup = 256
	// maxName is the longest name of a pool, member, service or peer.
	maxName = 63
)

// name checks the name of a pool, member, service or peer. Names become
// labels of metrics, file names and arguments of lbctl.
func (c *checker) name(at place, name string) {
	switch {
	case name == "" || strings.Trim(name, letters+digits+"._-") != "":
		c.fault(at, "%s is not a name; write letters a to z and A to Z, digits, and . _ - only", quote(name))
	case len(name) > maxName:
		c.fault(at, "the name has %d characters; write at most %d", len(name), maxName)
	case name == "." || name == "..":
		c.fault(at, "%s is not a name, because it cannot be one of a file; write at least one letter or digit", quote(name))
	}
}

// duration is the time that t says, between least and most, or fallback where
// the key is left out or wrong.
func (c *checker) duration(t text, fallback, least, most time.Duration) time.Duration {
	d, _ := c.tryDuration(t, fallback, least, most)
	return d
}

// tryDuration is duration, and tells whether the key was right or left out.
func (c *checker) tryDuration(t text, fallback, least, most time.Duration) (time.Duration, bool) {
	if !t.ok {
		return fallback, !t.present
	}
	d, err := time.ParseDuration(t.value)
	switch {
	case err != nil:
		c.fault(t.place, `%s is not a duration; write it as "1s" or "500ms"`, quote(t.value))
	case d < least:
		c.fault(t.place, "%s is too short; write %q to %q", quote(t.value), spell(least), spell(most))
	case d > most:
		c.fault(t.place, "%s is too long; write %q to %q", quote(t.value), spell(least), spell(most))
	default:
		return d, true
	}
	return fallback, false
}

// spell writes a duration as people do: 10m and 65535s, where Go has 10m0s and
// 18h12m15s.
func spell(d time.Duration) string {
	switch {
	case d == 0 || d%time.Second != 0:
		return d.String()
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// integer is the number that t says, between least and most, or fallback
// where the key is left out or wrong.
func (c *checker) integer(t number, fallback, least, most int64) int64 {
	if !t.ok {
		return fallback
	}
	if t.value < least || t.value > most {
		c.fault(t.place, "%d is out of range; write %d to %d", t.value, least, most)
		return fallback
	}
	return t.value
}

// address is the IP address that t says. Nothing can be routed to one that
// stands for no host, and a zone has a meaning on one host only.
func (c *checker) address(t text) (netip.Addr, bool) {
	if !t.ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(t.value)
	var wrong string
	switch {
	case err != nil && strings.Contains(t.value, "/"):
		c.fault(t.place, "%s has a prefix length; write the address without it", quote(t.value))
		return netip.Addr{}, false
	case err != nil:
		c.fault(t.place, `%s is not an IP address; write one such as "192.0.2.1" or "2001:db8::1"`, quote(t.value))
		return netip.Addr{}, false
	case a.Is4In6():
		c.fault(t.place, "%s is an IPv4 address written as an IPv6 one; write %q", quote(t.value), a.Unmap())
		return netip.Addr{}, false
	case a.Zone() != "":
		wrong = "has a zone"
	case a.IsUnspecified():
		wrong = "stands for no address"
	case a.IsMulticast():
		wrong = "is a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		wrong = "is the broadcast address"
	case a.IsLinkLocalUnicast():
		wrong = "is a link-local address"
	default:
		return a, true
	}
	c.fault(t.place, "%s %s; write one that other hosts can reach", quote(t.value), wrong)
	return netip.Addr{}, false
}

// filePath is the absolute path of a file that t says, or fallback where the
// key is left out or wrong. It is at most most bytes long.
func (c *checker) filePath(t text, fallback string, most int) string {
	switch {
	case !t.ok:
	case !path.IsAbs(t.value):
		c.fault(t.place, "%s is not an absolute path; write one that begins with /", quote(t.value))
	case strings.HasSuffix(t.value, "/"):
		c.fault(t.place, "%s names a directory; write the path of a file", quote(t.value))
	case len(t.value) > most:
		c.fault(t.place, "the path has %d bytes; write at most %d", len(t.value), most)
	case hasControl(t.value):
		c.fault(t.place, "%s holds a control character; write the path without it", quote(t.value))
	default:
		return path.Clean(t.value)
	}
	return fallback
}

// listen is the host:port that t says, or empty.
func (c *checker) listen(t text) string {
	if !t.ok || t.value == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(t.value)
	if err != nil {
		c.fault(t.place, `%s is not host:port; write it as "127.0.0.1:9404" or "[::1]:9404", or "" to listen nowhere`, quote(t.value))
		return ""
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Trim(host, letters+digits+".-") != "" {
		c.fault(t.place, `%s is not a host; write an address as in "127.0.0.1:9404", or none as in ":9404" for all`, quote(host))
		return ""
	}
	if _, ok := portNumber(port); !ok {
		c.fault(t.place, "%s is not a port; write a number from 1 to 65535", quote(port))
		return ""
	}
	return t.value
}

// portNumber reads a transport port as people write it: no sign, no leading
// zero.
func portNumber(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, false
	}
	return uint16(n), true
}

// hasControl tells that s holds a control character of ASCII.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// group is the name of the group that owns the socket, or empty.
func (c *checker) group(t text) string {
	if !t.ok {
		return defaultGroup
	}
	// The characters are those of useradd(8), and upper case besides.
	if strings.Trim(t.value, letters+digits+"._-$") != "" || len(t.value) > maxGroup {
		c.fault(t.place, `%s is not the name of a group; write one such as "lb", or "" for none`, quote(t.value))
	}
	return t.value
}
