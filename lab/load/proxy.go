package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	proxyPrefix = "PROXY "
	// maxProxyLine is the longest version 1 header with its CRLF, section
	// 2.1 of HAProxy's proxy-protocol.txt.
	maxProxyLine = 107
	// proxyPatience is how long a connection may take to say its first word.
	proxyPatience = 10 * time.Second
)

// proxyListener takes the PROXY header off each connection that begins with
// one. Connections without one pass as they are.
type proxyListener struct{ net.Listener }

func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: c, r: bufio.NewReaderSize(c, 256)}, nil
}

// proxyConn reads the header when somebody first asks for something that
// depends on it, and so not in the loop that accepts.
type proxyConn struct {
	net.Conn
	r      *bufio.Reader
	once   sync.Once
	client net.Addr // nil: the connection's own
	err    error
}

func (c *proxyConn) Read(b []byte) (int, error) {
	c.once.Do(c.readHeader)
	if c.err != nil {
		return 0, c.err
	}
	return c.r.Read(b)
}

// RemoteAddr is the client that the header names, where there is one. It may
// wait for the header.
func (c *proxyConn) RemoteAddr() net.Addr {
	c.once.Do(c.readHeader)
	if c.client != nil {
		return c.client
	}
	return c.Conn.RemoteAddr()
}

func (c *proxyConn) readHeader() {
	c.Conn.SetReadDeadline(time.Now().Add(proxyPatience))
	defer c.Conn.SetReadDeadline(time.Time{})
	first, err := c.r.Peek(1)
	if err != nil {
		c.err = err
		return
	}
	if first[0] != proxyPrefix[0] {
		return
	}
	start, err := c.r.Peek(len(proxyPrefix))
	if !bytes.Equal(start, []byte(proxyPrefix)) {
		// Another word with P; that it is too short is for its reader to find.
		if err != nil && !errors.Is(err, io.EOF) {
			c.err = err
		}
		return
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		c.err = fmt.Errorf("reading the PROXY header: %w", err)
		return
	}
	c.client, c.err = parseProxy(line)
}

// parseProxy reads a version 1 header line: the client, nil where the proxy
// does not know it (UNKNOWN) or speaks for itself.
func parseProxy(line []byte) (net.Addr, error) {
	bad := fmt.Errorf("reading the PROXY header: %.120q", line)
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || len(line) > maxProxyLine {
		return nil, bad
	}
	f := strings.Split(text, " ")
	if len(f) >= 2 && f[0] == "PROXY" && f[1] == "UNKNOWN" {
		return nil, nil
	}
	if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" && f[1] != "TCP6" {
		return nil, bad
	}
	for _, s := range f[2:4] {
		if a, err := netip.ParseAddr(s); err != nil || a.Is4() != (f[1] == "TCP4") || a.Zone() != "" {
			return nil, bad
		}
	}
	for _, s := range f[4:6] {
		if _, err := strconv.ParseUint(s, 10, 16); err != nil {
			return nil, bad
		}
	}
	port, _ := strconv.ParseUint(f[4], 10, 16)
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f[2]), uint16(port))), nil
}
