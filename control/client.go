package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// The bounds of a Client.
const (
	// clientTimeout bounds one question with its answer.
	clientTimeout = 5 * time.Second
	// clientChangeTimeout is the same for a request that changes something.
	// The daemon gives up before: it knows better than we what became of it.
	clientChangeTimeout = writeTimeout
	// maxAnswer is above what tens of thousands of members take.
	maxAnswer = 32 << 20
)

// Client asks the daemon that listens on a unix socket. Its errors are for
// people: one line that says what to do.
type Client struct {
	socket  string
	program string // who should listen there, for errors
	http    *http.Client
}

// NewClient is a client of the daemon on socket; empty: DefaultSocket. It
// connects anew for each question.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, program: "lb4d", http: &http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		// The daemon redirects nobody.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// NewLB7Client is a client of the lb7d on socket; empty: DefaultLB7Socket.
func NewLB7Client(socket string) *Client {
	if socket == "" {
		socket = DefaultLB7Socket
	}
	c := NewClient(socket)
	c.program = "lb7d"
	return c
}

// LB7Status is the latest status of lb7d.
func (c *Client) LB7Status(ctx context.Context) (*LB7Status, error) {
	body, err := c.RawStatus(ctx)
	if err != nil {
		return nil, err
	}
	var st LB7Status
	if err := json.Unmarshal(body, &st); err != nil {
		return nil, fmt.Errorf("reading the answer on %s: %w: are lbctl and lb7d of the same version? (lbctl version)", c.socket, err)
	}
	return &st, nil
}

// Status is the latest status of the daemon.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	body, err := c.RawStatus(ctx)
	if err != nil {
		return nil, err
	}
	var st Status
	if err := json.Unmarshal(body, &st); err != nil {
		return nil, fmt.Errorf("reading the answer on %s: %w: are lbctl and %s of the same version? (lbctl version)", c.socket, err, c.program)
	}
	return &st, nil
}

// RawStatus is the latest status as the daemon sent it, valid JSON. It has the
// fields that a newer daemon knows and Status does not.
func (c *Client) RawStatus(ctx context.Context) ([]byte, error) {
	body, err := c.ask(ctx, http.MethodGet, "/v1/status", nil, clientTimeout)
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("reading the answer on %s: it is no JSON: is it %s that listens there?", c.socket, c.program)
	}
	return body, nil
}

// ask is the body that the daemon answers with 200 within timeout. What it
// refuses in its own words is a *Refusal.
func (c *Client) ask(ctx context.Context, method, path string, send []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The host is a formality; the dialer knows the socket only.
	req, err := http.NewRequestWithContext(ctx, method, "http://lb4d"+path, bytes.NewReader(send))
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	if len(send) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err, timeout)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.explain(err, timeout)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("reading the answer on %s: it has more than %d MiB: is it %s that listens there?", c.socket, maxAnswer>>20, c.program)
	case resp.StatusCode != http.StatusOK:
		if refusal := readRefusal(resp.StatusCode, body); refusal != nil {
			return nil, refusal
		}
		line, _, _ := bytes.Cut(body[:min(len(body), 200)], []byte("\n"))
		return nil, fmt.Errorf("asking %s for %s: answered %s: %s", c.socket, path, resp.Status, line)
	}
	return body, nil
}

// explain says what an error of the transport means for the one who asks.
func (c *Client) explain(err error, timeout time.Duration) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no %[1]s answers on %[2]s: is it running? (systemctl status %[1]s)", c.program, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to ask %s on %s: you need to be root%s", c.program, c.socket, orInGroup(c.socket))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%[1]s on %[2]s gave no answer within %[3]s: it may be stuck (journalctl -u %[1]s)", c.program, c.socket, timeout)
	}
	var get *url.Error // which repeats what is asked
	if errors.As(err, &get) {
		err = get.Err
	}
	return fmt.Errorf("asking %s on %s: %w", c.program, c.socket, cause(err))
}

// orInGroup names the group that may use the socket, as far as can be seen
// from here.
func orInGroup(socket string) string {
	info, err := os.Stat(socket)
	if err != nil {
		return " or in group lb" // the default, where the directory is closed to us
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Gid == 0 || info.Mode().Perm()&0o020 == 0 {
		return ""
	}
	gid := strconv.FormatUint(uint64(stat.Gid), 10)
	if g, err := user.LookupGroupId(gid); err == nil {
		return " or in group " + g.Name
	}
	return " or in group " + gid
}
