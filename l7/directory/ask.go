package directory

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lb4d/l7/runtime"
)

const (
	// maxAnswer bounds the answer for one host, in bytes: it is one word, or a
	// small JSON object.
	maxAnswer = 16 << 10
	// maxBulk bounds the answer for all hosts: a million lines of 60 bytes.
	maxBulk = 64 << 20
)

// What an answer can be short of being one.
var (
	// ErrUnknown tells that the directory knows no such host.
	ErrUnknown = errors.New("the directory knows no such host")
	// ErrWrong tells that the directory names a back end that does not exist,
	// or none that can be understood.
	ErrWrong = errors.New("the directory's answer is wrong")
	// ErrAway tells that the directory gives no answer: it cannot be reached,
	// it takes too long, or it answers with an error.
	ErrAway = errors.New("the directory does not answer")
	// ErrBusy tells that the directory was not asked, because too many
	// questions are waiting already.
	ErrBusy = errors.New("too many hosts are being looked up")
)

// client asks the directory.
type client struct {
	url, bulk string
	http      *http.Client
}

// newClient keeps up to conns connections to the directory.
func newClient(url, bulk string, conns int) *client {
	return &client{url: url, bulk: bulk, http: &http.Client{
		Transport: &http.Transport{
			MaxConnsPerHost:        conns,
			MaxIdleConnsPerHost:    conns,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
		// A directory that redirects has moved, and somebody should be told.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// one asks for the back end of a host. The error is ErrUnknown, ErrWrong or
// ErrAway, with what happened.
func (c *client) one(ctx context.Context, host string) (backend string, err error) {
	err = c.get(ctx, strings.ReplaceAll(c.url, "{host}", url.PathEscape(host)), func(kind string, body io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
		switch {
		case err != nil:
			return away(ctx, err)
		case len(text) > maxAnswer:
			return fmt.Errorf("%w: over %d bytes for one host", ErrWrong, maxAnswer)
		}
		backend, err = parseOne(kind, text)
		return err
	})
	return backend, err
}

// get makes one request and hands the body of a 200 over.
func (c *client) get(ctx context.Context, url string, read func(kind string, body io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	req.Header.Set("User-Agent", "lb7d")
	req.Header.Set("Accept", "text/plain, application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return away(ctx, err)
	}
	// What is left of a short body is read, so that the connection serves again.
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
		resp.Body.Close()
	}()
	switch resp.StatusCode {
	case http.StatusOK:
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		return read(kind, resp.Body)
	case http.StatusNotFound, http.StatusGone, http.StatusNoContent:
		return ErrUnknown
	}
	return fmt.Errorf("%w: it answers with %s", ErrAway, resp.Status)
}

// away tells why there was no answer, and a deadline as such.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrAway, context.Cause(ctx))
	}
	// The address is in the configuration, and may hold a password.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// parseOne reads the answer for one host: the name of the back end, or where
// the answer is JSON, a string or an object with a "backend".
func parseOne(kind string, text []byte) (string, error) {
	text = bytes.TrimSpace(text)
	if kind != "application/json" {
		return checked(string(text))
	}
	var s string
	if json.Unmarshal(text, &s) == nil {
		return checked(s)
	}
	var o struct {
		Backend string `json:"backend"`
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return "", fmt.Errorf("%w: %w", ErrWrong, err)
	}
	return checked(o.Backend)
}

// checked refuses what cannot be the name of a back end in HAProxy
// (configuration manual, section 2.4); it would not travel through HAProxy's
// socket, or mean something else there.
func checked(backend string) (string, error) {
	if err := runtime.CheckWord(backend); err != nil {
		return "", fmt.Errorf("%w: %w", ErrWrong, err)
	}
	if i := strings.IndexFunc(backend, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.:", r))
	}); i >= 0 {
		return "", fmt.Errorf("%w: %.64q has %q, which no back end's name has", ErrWrong, backend, backend[i])
	}
	return backend, nil
}

// all asks for every host at once and hands each good line to each, which may
// return false for no more. It counts what it had to leave out. A list that
// breaks off is an error, after what came before it was handed over.
func (c *client) all(ctx context.Context, each func(host, backend string) bool) (bad int, err error) {
	err = c.get(ctx, c.bulk, func(kind string, body io.Reader) error {
		r := &counted{r: body, left: maxBulk}
		take := func(host, backend string) bool {
			h, plain, err := hostOf(host)
			if err == nil && plain {
				backend, err = checked(backend)
			}
			if err != nil || !plain {
				bad++
				return true
			}
			return each(h, backend)
		}
		err := parseAll(kind, r, take)
		if err != nil && ctx.Err() != nil {
			return away(ctx, err)
		}
		return err
	})
	if errors.Is(err, ErrUnknown) {
		err = fmt.Errorf("%w: it has no list of all hosts at the bulk address", ErrAway)
	}
	return bad, err
}

// counted reads up to a bound, and fails beyond it.
type counted struct {
	r    io.Reader
	left int64
}

// Read is an error once the bound is passed.
func (c *counted) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("%w: over %d bytes for all hosts", ErrWrong, maxBulk)
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// parseAll reads the answer for all hosts: lines "host backend" as in a
// HAProxy map, or where it is JSON, an object with a back end for each host.
func parseAll(kind string, body io.Reader, take func(host, backend string) bool) error {
	if kind == "application/json" {
		d := json.NewDecoder(body)
		if t, err := d.Token(); err != nil || t != json.Delim('{') {
			return fmt.Errorf("%w: the list of all hosts is no JSON object", ErrWrong)
		}
		for d.More() {
			key, err := d.Token()
			var backend string
			if err == nil {
				err = d.Decode(&backend)
			}
			if err != nil {
				return fmt.Errorf("%w: reading the list of all hosts: %w", ErrWrong, err)
			}
			if host, ok := key.(string); !ok || !take(host, backend) {
				return nil
			}
		}
		if _, err := d.Token(); err != nil {
			return fmt.Errorf("%w: reading the list of all hosts: %w", ErrWrong, err)
		}
		return nil
	}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		host, backend, _ := strings.Cut(line, " ")
		if !take(host, strings.TrimSpace(backend)) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: reading the list of all hosts: %w", ErrWrong, err)
	}
	return nil
}
