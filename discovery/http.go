package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HTTP is an endpoint in the form of Prometheus's http_sd, asked at intervals or
// by long polling.
//
// Long polling needs an endpoint that gives an ETag and, asked with it in
// If-None-Match and with "Prefer: wait=N" (RFC 7240 section 4.3), holds its
// answer until the list has changed or N seconds are over. Whether it does is
// found out: one that answers at once is asked at intervals.
//
// The values are validated by the caller: the durations are positive, Wait may
// be 0.
type HTTP struct {
	// URL is http or https. A user and password in it are sent as basic
	// authentication, and not shown.
	URL string
	// Interval is from one request to the next where the endpoint does not
	// hold its answers.
	Interval time.Duration
	// Timeout is for a whole answer, beyond the time that it was asked to
	// wait.
	Timeout time.Duration
	// Wait is how long the endpoint may hold an answer, in whole seconds; 0:
	// it is not asked to.
	Wait time.Duration
	// TokenFile holds a bearer token, read for each request; empty: none is
	// sent.
	TokenFile string
}

// String names the endpoint, without its query, which may hold a key.
func (s HTTP) String() string { return "http " + bareURL(s.URL) }

// Run asks until ctx ends.
func (s HTTP) Run(ctx context.Context, tell func([]Entry, error)) {
	client := newClient()
	defer client.CloseIdleConnections()
	p := httpPoll{HTTP: s, client: client}
	for failures := 0; ; {
		start := time.Now()
		entries, err := p.ask(ctx)
		p.failed = err != nil
		if ctx.Err() != nil {
			return
		}
		tell(entries, err)
		took := time.Since(start)
		var pause time.Duration
		if failures++; err != nil {
			pause = backoff(failures, s.Interval)
		} else if failures = 0; p.holds {
			pause = p.pace.gap(took)
		} else {
			pause = spread(s.Interval) - took
		}
		if !sleep(ctx, max(apart, pause)) {
			return
		}
	}
}

// httpPoll is one Run of an HTTP source.
type httpPoll struct {
	HTTP
	client *http.Client
	// etag is that of entries, the last list; empty: it had none.
	etag    string
	entries []Entry
	// failed: the last request did. The next does not wait, because that the
	// endpoint is back is news, whatever the list is.
	failed bool
	// holds: the endpoint held its last answer, or it is to be found out
	// whether it does.
	holds bool
	pace  pace
}

// ask makes one request.
func (p *httpPoll) ask(ctx context.Context) ([]Entry, error) {
	first := p.etag == ""
	wait := p.Wait
	if first || p.failed {
		wait = 0
	}
	header := http.Header{
		"Accept": {"application/json"},
		// Of http_sd: endpoints adapt to it.
		"X-Prometheus-Refresh-Interval-Seconds": {strconv.FormatFloat(p.Interval.Seconds(), 'f', -1, 64)},
	}
	timeout := p.Timeout
	if !first {
		header.Set("If-None-Match", p.etag)
	}
	if wait > 0 {
		header.Set("Prefer", fmt.Sprintf("wait=%d", wait/time.Second))
		timeout += wait
	}
	if err := bearToken(header, "Authorization", "Bearer ", p.TokenFile); err != nil {
		return nil, err
	}
	start := time.Now()
	got, err := get(ctx, p.client, p.URL, header, timeout)
	if err != nil {
		return nil, err
	}
	fresh := false
	switch {
	case got.status == http.StatusNotModified && !first:
	case got.status != http.StatusOK:
		return nil, got.unexpected(p.URL)
	default:
		entries, err := ParseJSON(got.body)
		if err != nil {
			// The same answer must not be taken for a confirmation.
			p.etag = ""
			return nil, fmt.Errorf("reading the answer of %s: %w", bareURL(p.URL), err)
		}
		etag := got.header.Get("ETag")
		fresh = etag != p.etag
		p.entries, p.etag = entries, etag
	}
	// What changes while nobody is asking is answered at once, and says
	// nothing of whether the next answer will be held.
	applied := strings.Contains(strings.Join(got.header.Values("Preference-Applied"), ","), "wait")
	p.holds = p.Wait > 0 && p.etag != "" &&
		(wait == 0 || applied || time.Since(start) >= min(heldAfter, wait) || p.holds && fresh)
	return p.entries, nil
}

// bareURL is what of a URL can be shown.
func bareURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "of a URL that is none"
	}
	return printable((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// newClient is a client of one source.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			// A token is for the host that it was configured for.
			from, to := via[0].URL, request.URL
			same := to.Scheme == from.Scheme && to.Host == from.Host
			safer := to.Scheme == "https" && from.Scheme == "http" && to.Hostname() == from.Hostname()
			if !same && !safer {
				return errors.New("it redirects to another host")
			}
			if len(via) >= 5 {
				return errors.New("it redirects more than 5 times")
			}
			return nil
		},
	}
}
