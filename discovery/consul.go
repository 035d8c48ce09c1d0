package discovery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Consul is a service in Consul: the instances whose checks, and whose nodes'
// checks, all pass, by blocking queries.
//
// A server is named NODE:ID, because an ID is its agent's own. Its labels are
// the metadata of the node, and over them those of the service. Its weight, where
// no label has it, is the one for passing instances, unless it is the same for
// all: Consul gives 1 to everybody who asks for none.
//
// The values are validated by the caller: the durations are positive, and Wait is
// at most 10 minutes, as Consul has it.
type Consul struct {
	// URL is that of the agent, such as http://127.0.0.1:8500, without a
	// path.
	URL string
	// Service is the name of the service.
	Service string
	// Datacenter is another than the agent's own; empty: that one.
	Datacenter string
	// Tag is one that the instances must have; empty: any.
	Tag string
	// Wait is how long Consul may hold its answer. It adds up to a sixteenth.
	Wait time.Duration
	// Timeout is for an answer beyond the time that it may be held.
	Timeout time.Duration
	// TokenFile holds an ACL token, read for each request; empty: none is
	// sent.
	TokenFile string
}

// String names the service and the agent.
func (s Consul) String() string {
	return "consul " + printable(s.Service) + " at " + bareURL(s.URL)
}

// Run asks until ctx ends.
func (s Consul) Run(ctx context.Context, tell func([]Entry, error)) {
	client := newClient()
	defer client.CloseIdleConnections()
	var index uint64 // 0: do not wait
	var pace pace
	for failures := 0; ; {
		start := time.Now()
		entries, next, err := s.ask(ctx, client, index)
		if ctx.Err() != nil {
			return
		}
		tell(entries, err)
		var pause time.Duration
		if err != nil {
			// The next request does not wait: that Consul is back is news,
			// whatever the list is.
			index = 0
			failures++
			pause = backoff(failures, min(s.Wait, lastRetry))
		} else {
			failures = 0
			index = following(index, next)
			pause = pace.gap(time.Since(start))
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// following is the index to wait on after an answer with the index next, by the
// rules that Consul's documentation has for blocking queries. One that went
// backwards, as it does when the servers were restored from a snapshot, would
// never be reached again: the next request must not wait. And 0 would make every
// request return at once, where 1 is always safe to wait on.
func following(index, next uint64) uint64 {
	if next < index {
		return 0
	}
	return max(next, 1)
}

// ask makes one request, which waits for what comes after index where that is
// not 0.
func (s Consul) ask(ctx context.Context, client *http.Client, index uint64) (entries []Entry, next uint64, err error) {
	address, err := url.Parse(s.URL)
	if err != nil {
		return nil, 0, fmt.Errorf("asking Consul: %s", bareURL(s.URL))
	}
	address = address.JoinPath("v1/health/service", url.PathEscape(s.Service))
	query := url.Values{"passing": {"1"}}
	timeout := s.Timeout
	if index > 0 {
		query.Set("index", strconv.FormatUint(index, 10))
		query.Set("wait", fmt.Sprintf("%dms", s.Wait/time.Millisecond))
		timeout += s.Wait + s.Wait/16
	}
	if s.Datacenter != "" {
		query.Set("dc", s.Datacenter)
	}
	if s.Tag != "" {
		query.Set("tag", s.Tag)
	}
	address.RawQuery = query.Encode()

	header := http.Header{"Accept": {"application/json"}}
	if err := bearToken(header, "X-Consul-Token", "", s.TokenFile); err != nil {
		return nil, 0, err
	}
	got, err := get(ctx, client, address.String(), header, timeout)
	if err != nil {
		return nil, 0, err
	}
	if got.status != http.StatusOK {
		return nil, 0, got.unexpected(address.String())
	}
	next, err = strconv.ParseUint(got.header.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the answer of %s: its X-Consul-Index is %s, is it Consul's?",
			bareURL(s.URL), shown(got.header.Get("X-Consul-Index")))
	}
	entries, err = parseConsul(got.body)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the answer of %s: %w", bareURL(address.String()), err)
	}
	return entries, next, nil
}

// consulInstance is what is read of an element of the answer.
type consulInstance struct {
	Node struct {
		Node    string
		Address string
		Meta    jsonLabels
	}
	Service struct {
		ID      string
		Address string
		Port    int
		Meta    jsonLabels
		Weights struct{ Passing int }
	}
}

// parseConsul reads the answer of the health endpoint.
func parseConsul(data []byte) ([]Entry, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := opened(decoder, '['); err != nil {
		return nil, placed(decoder, err)
	}
	entries, weights := []Entry{}, []int{}
	for decoder.More() {
		if len(entries) == MaxServers {
			return nil, tooMany(MaxServers + 1)
		}
		var i consulInstance
		if err := decoder.Decode(&i); err != nil {
			return nil, placed(decoder, err)
		}
		entries = append(entries, i.entry())
		weights = append(weights, i.Service.Weights.Passing)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, placed(decoder, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, placed(decoder, errors.New("there is more after the list"))
	}
	weigh(entries, weights)
	return entries, nil
}

// entry makes an entry of an instance.
func (i consulInstance) entry() Entry {
	labels := make(map[string]string)
	for _, meta := range []jsonLabels{i.Node.Meta, i.Service.Meta} {
		for label, value := range meta {
			labels[label] = value
		}
	}
	entry := Entry{
		Name:   i.Node.Node + ":" + i.Service.ID,
		Labels: labels,
	}
	// A service without an address of its own is at its node's.
	if address := cmp.Or(i.Service.Address, i.Node.Address); address != "" {
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		entry.Target = net.JoinHostPort(address, strconv.Itoa(i.Service.Port))
	}
	return entry
}

// weigh gives the entries the weights that a source has for them, where no label
// has one. Such weights tell the servers of a list apart: where all have the
// same, nobody meant any. They may go beyond HAProxy's range, and then keep
// their proportions. One of 0 or less is the smallest there is, not none: RFC
// 2782 leaves it a small chance.
func weigh(entries []Entry, weights []int) {
	most, differ := 0, false
	for i, weight := range weights {
		weights[i] = min(weight, 1<<32) // no overflow below
		most = max(most, weights[i])
		differ = differ || weight != weights[0]
	}
	if !differ {
		return
	}
	for i, weight := range weights {
		if entries[i].Labels[LabelWeight] != "" {
			continue
		}
		if most > maxWeight {
			weight = weight * maxWeight / most
		}
		labels := map[string]string{LabelWeight: strconv.Itoa(max(1, weight))}
		for label, value := range entries[i].Labels {
			if label != LabelWeight {
				labels[label] = value
			}
		}
		entries[i].Labels = labels
	}
}
