package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// errNoName tells that a name does not exist.
var errNoName = errors.New("the name does not exist")

const (
	// maxUDP is what fits a packet everywhere (DNS flag day 2020).
	maxUDP = 1232
	// rounds is how often all resolvers are asked before there is no answer.
	rounds = 2
)

// resolver asks recursive name servers.
type resolver struct {
	timeout time.Duration
	servers []string // HOST:PORT
	// last is the one that answered last. It is asked first: where one of
	// them is dead, only the first question waits for it.
	last atomic.Uint32
}

// use sets the servers: those given, or those in the file at path.
func (r *resolver) use(given []netip.AddrPort, path string) error {
	var servers []string
	for _, server := range given {
		servers = append(servers, server.String())
	}
	if len(given) == 0 {
		config, err := dns.ClientConfigFromFile(path)
		if err != nil {
			return fmt.Errorf("reading the resolvers: %w", err)
		}
		for _, server := range config.Servers {
			servers = append(servers, net.JoinHostPort(server, config.Port))
		}
	}
	if len(servers) == 0 {
		return fmt.Errorf("reading the resolvers: %s has none", path)
	}
	if !slices.Equal(servers, r.servers) {
		r.servers = servers
		r.last.Store(0)
	}
	return nil
}

// ask gives the answer to a question, which may be empty, or errNoName. Any
// other error is the last resolver's.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(name), kind)
	query.SetEdns0(maxUDP, false)
	var last error
	first := int(r.last.Load())
	for i := range rounds * len(r.servers) {
		if ctx.Err() != nil {
			break
		}
		n := (first + i) % len(r.servers)
		records, err := r.askServer(ctx, r.servers[n], query)
		if err == nil || errors.Is(err, errNoName) {
			r.last.Store(uint32(n))
		}
		if err == nil {
			return records, nil
		}
		last = fmt.Errorf("asking %s for %s %s: %w",
			r.servers[n], dns.TypeToString[kind], printable(strings.TrimSuffix(name, ".")), err)
		if errors.Is(err, errNoName) {
			return nil, last
		}
	}
	if last == nil {
		last = fmt.Errorf("asking for %s %s: the time for the whole list is over",
			dns.TypeToString[kind], printable(strings.TrimSuffix(name, ".")))
	}
	return nil, last
}

// askServer asks one server, over TCP where the answer does not fit a packet,
// and without EDNS where the server is too old for it.
func (r *resolver) askServer(ctx context.Context, server string, query *dns.Msg) ([]dns.RR, error) {
	reply, err := r.exchange(ctx, "udp", server, query)
	if err == nil && reply.Rcode == dns.RcodeFormatError {
		query = query.Copy()
		query.Extra = nil
		reply, err = r.exchange(ctx, "udp", server, query)
	}
	if err == nil && reply.Truncated {
		reply, err = r.exchange(ctx, "tcp", server, query)
	}
	if err != nil {
		return nil, err
	}
	switch reply.Rcode {
	case dns.RcodeSuccess:
		return reply.Answer, nil
	case dns.RcodeNameError:
		return nil, errNoName
	}
	if text, known := dns.RcodeToString[reply.Rcode]; known {
		return nil, errors.New("it answered " + text)
	}
	return nil, fmt.Errorf("it answered with code %d", reply.Rcode)
}

// exchange sends one query and reads its reply. It ends with ctx, and with the
// timeout.
func (r *resolver) exchange(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	client := &dns.Client{Net: network, UDPSize: maxUDP, Timeout: r.timeout}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, r.timedOut(err)
	}
	defer conn.Close()
	// The library reads until a deadline, whatever becomes of the context.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reply, _, err := client.ExchangeWithConnContext(ctx, query, conn)
	if err != nil {
		return nil, r.timedOut(err)
	}
	// The library compares the ID. The question makes it harder to slip in
	// an answer from elsewhere (RFC 5452 section 9.1).
	if !reply.Response || len(reply.Question) != 1 ||
		!strings.EqualFold(reply.Question[0].Name, query.Question[0].Name) ||
		reply.Question[0].Qtype != query.Question[0].Qtype {
		return nil, errors.New("it answered another question")
	}
	return reply, nil
}

// timedOut names a timeout as such.
func (r *resolver) timedOut(err error) error {
	if timedOut(err) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("timeout after %v", r.timeout)
	}
	return err
}
