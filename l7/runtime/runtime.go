// Package runtime speaks HAProxy's Runtime API: one command a line, strict
// words, every reply read to its end and judged.
//
// HAProxy takes a semicolon or a newline inside a value for the end of a
// command, and carries out what follows. It takes port 99999 for 34463 and
// says that all is well. So nothing is sent here that was not put together
// word by word from checked words (command.go), and nothing counts as done
// unless the reply is one of those that mean so (reply.go).
//
// Changes travel together over one short session in prompt mode (session.go);
// listings (servers.go, stat.go, info.go, maps.go) have a connection each,
// whose end is the end of the reply, so that no text in a listing can pass for
// it. No connection outlives its call: one that stayed open would reach the
// old process after a reload, and would keep it from ending.
package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"
)

const (
	// maxConns bounds the connections open at once. A stats socket admits 10
	// where its maxconn is left out, and people need some of them.
	maxConns = 4
	// maxListing bounds the reply to a listing, in bytes: 100,000 map entries
	// take about 8 MB.
	maxListing = 256 << 20
	// maxListingLine bounds one line of a listing: a line of a map holds an
	// entry of a file, whose lines HAProxy itself bounds by its buffers.
	maxListingLine = 1 << 20
)

// Options are what can be left out.
type Options struct {
	// Process goes in front of each command on a master socket: "@1" for the
	// present worker, "@!PID" for a certain one; empty for a stats socket.
	// HAProxy management guide, section 9.4.1.
	Process string
	// Timeout bounds the wait for the connection and for each reply; 5 s
	// where it is 0.
	Timeout time.Duration
}

// Client reaches one HAProxy. It holds no connection between calls, and may be
// used by several goroutines at once.
type Client struct {
	network, address string
	prefix           string // "@1 ", or empty
	timeout          time.Duration
	free             chan struct{} // a place for each connection that may be open
}

// process is what may name a worker behind a master socket.
var process = regexp.MustCompile(`^@(?:[0-9]{1,5}|![0-9]{1,10})$`)

// New prepares a client for the socket at address: a path, a path behind
// "unix@", or IP:PORT. It does not connect yet.
func New(address string, o Options) (*Client, error) {
	c := &Client{timeout: o.Timeout, free: make(chan struct{}, maxConns)}
	if c.timeout <= 0 {
		c.timeout = 5 * time.Second
	}
	switch path := strings.TrimPrefix(address, "unix@"); {
	case strings.HasPrefix(path, "/"):
		c.network, c.address = "unix", path
	default:
		if _, err := netip.ParseAddrPort(address); err != nil {
			return nil, fmt.Errorf("reading the socket address %q: neither an absolute path nor IP:PORT", address)
		}
		c.network, c.address = "tcp", address
	}
	if o.Process != "" {
		if !process.MatchString(o.Process) {
			return nil, fmt.Errorf("reading the process %q: want @NUMBER or @!PID", o.Process)
		}
		c.prefix = o.Process + " "
	}
	return c, nil
}

// Address is where the client connects, for logs and errors.
func (c *Client) Address() string { return c.address }

// dial opens a connection that ends with ctx, waiting for a place first.
func (c *Client) dial(ctx context.Context) (net.Conn, func(), error) {
	select {
	case c.free <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("connecting to HAProxy at %s: %w", c.address, context.Cause(ctx))
	}
	d := net.Dialer{Timeout: c.timeout}
	conn, err := d.DialContext(ctx, c.network, c.address)
	if err != nil {
		<-c.free
		return nil, nil, fmt.Errorf("connecting to HAProxy at %s: %w", c.address, plain(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() {
		stop()
		conn.Close()
		<-c.free
	}, nil
}

// plain drops the address that net repeats in its errors, which is said
// already.
func plain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if sys, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return sys.Err
		}
		return op.Err
	}
	return err
}

// list sends one command with a connection to itself and hands each line of
// the reply, without its newline and in order, to each. It reads on to the end
// of the reply even after each has returned an error, because an unread reply
// would tell HAProxy of an error that was none.
func (c *Client) list(ctx context.Context, cmd Command, each func(line string) error) error {
	conn, done, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer done()
	_ = conn.SetDeadline(time.Now().Add(c.timeout))
	if ctx.Err() != nil { // or that deadline would outlive it
		return cmd.failed(ctx, ctx.Err())
	}
	if _, err := io.WriteString(conn, c.prefix+cmd.text()); err != nil {
		return cmd.failed(ctx, err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok && c.prefix != "" {
		// A stats socket hangs up after its answer; a master socket waits for
		// the next command until it hears that there is none.
		_ = half.CloseWrite()
	}
	lines := bufio.NewScanner(io.LimitReader(conn, maxListing+1))
	lines.Buffer(make([]byte, 0, 64<<10), maxListingLine)
	var first error
	size, last := 0, "none"
	for lines.Scan() {
		// Progress is what counts: a long listing takes more than one timeout.
		_ = conn.SetDeadline(time.Now().Add(c.timeout))
		if ctx.Err() != nil {
			return cmd.failed(ctx, ctx.Err())
		}
		if size += len(lines.Bytes()) + 1; size > maxListing {
			return cmd.failed(ctx, fmt.Errorf("the reply is over %d bytes", maxListing))
		}
		last = lines.Text()
		if first == nil {
			first = each(last)
		}
	}
	if err := lines.Err(); err != nil {
		return cmd.failed(ctx, plain(err))
	}
	// HAProxy ends each reply with an empty line and writes none before it
	// (management guide, section 9.3). Without it, the listing was cut short,
	// and servers that it lacks may well exist.
	if first == nil && last != "" {
		return cmd.failed(ctx, io.ErrUnexpectedEOF)
	}
	return first
}
