package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// DNS is the SRV records of a name (RFC 2782) and the addresses of their targets.
//
// Each address of a target is a server of its own, named TARGET:ADDRESS:PORT: a
// new address is a new process, which has to warm up. Its weight is that of the
// record, unless it is the same for all. Its group is the priority of the
// record, so that one back end can take the servers of the first and another
// those to fall back on; a back end without groups takes them all, as HAProxy
// itself does.
//
// The list is asked for again when the first of the records used expires. A name
// that does not exist, or has no SRV records, is a failure and not an empty list,
// because zones get lost more often than all servers of a site; the empty list is
// a single record with the target ".". A target without an address is refused by
// name.
//
// The values are validated by the caller: the durations are positive, MinTTL is
// at most MaxTTL.
type DNS struct {
	// Name is a whole name, such as _http._tcp.web.example.com. No search
	// domain is added.
	Name string
	// Servers are the resolvers, asked in turn; none: those of
	// /etc/resolv.conf, read each time.
	Servers []netip.AddrPort
	// Family is 4 or 6 to use such addresses only; 0: IPv4 where a target has
	// such an address, IPv6 otherwise, since two addresses of one server
	// would make it two.
	Family int
	// MinTTL and MaxTTL bound how long an answer is used.
	MinTTL, MaxTTL time.Duration
	// Timeout is for one question to one resolver.
	Timeout time.Duration
}

const (
	// resolvConf has the resolvers of the host.
	resolvConf = "/etc/resolv.conf"
	// questionsAtOnce bounds what a list of many targets does to a resolver.
	questionsAtOnce = 16
	// roundTimeouts bounds all questions for one list, in Timeouts.
	roundTimeouts = 15
)

// String has the name.
func (s DNS) String() string { return "dns_srv " + printable(s.Name) }

// Run asks until ctx ends.
func (s DNS) Run(ctx context.Context, tell func([]Entry, error)) {
	r := resolver{timeout: s.Timeout}
	for failures := 0; ; {
		entries, ttl, err := s.ask(ctx, &r)
		if ctx.Err() != nil {
			return
		}
		tell(entries, err)
		// Not before the time: a cache would only give the rest of it.
		pause := max(s.MinTTL, min(ttl, s.MaxTTL))
		if failures++; err != nil {
			pause = backoff(failures, s.MinTTL)
		} else {
			failures = 0
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// ask makes one list, and tells how long it is good for.
func (s DNS) ask(ctx context.Context, r *resolver) ([]Entry, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeouts*s.Timeout)
	defer cancel()
	if err := r.use(s.Servers, resolvConf); err != nil {
		return nil, 0, err
	}
	records, err := r.ask(ctx, s.Name, dns.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	targets, ttl, err := serviceRecords(records)
	if err != nil {
		return nil, 0, fmt.Errorf("asking for SRV %s: %w", printable(s.Name), err)
	}

	hosts := make(map[string]*host, len(targets))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(questionsAtOnce)
	for _, srv := range targets {
		name := dns.CanonicalName(srv.Target)
		if hosts[name] != nil {
			continue
		}
		h := &host{}
		hosts[name] = h
		group.Go(func() (err error) {
			*h, err = s.askHost(ctx, r, name)
			return err
		})
	}
	// One answer that is missing makes the list a shorter one, which nobody
	// meant: then there is no list.
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	for _, h := range hosts {
		ttl = min(ttl, h.ttl)
	}

	entries, weights := []Entry{}, []int{}
	for _, srv := range targets {
		for _, entry := range hosts[dns.CanonicalName(srv.Target)].entries(srv) {
			entries, weights = append(entries, entry), append(weights, int(srv.Weight))
		}
		if len(entries) > MaxServers {
			return nil, 0, tooMany(len(entries))
		}
	}
	weigh(entries, weights)
	return entries, ttl, nil
}

// serviceRecords picks the SRV records that have a target, and the time that they
// are good for.
func serviceRecords(records []dns.RR) (targets []*dns.SRV, ttl time.Duration, err error) {
	ttl = maxTTL
	found := false
	for _, record := range records {
		srv, is := record.(*dns.SRV)
		if !is {
			continue // a CNAME that led to them
		}
		found = true
		ttl = min(ttl, seconds(srv.Hdr.Ttl))
		if srv.Target != "." {
			targets = append(targets, srv)
		}
	}
	if !found {
		return nil, 0, errors.New("it has no such records (an empty list is one with the target \".\")")
	}
	if len(targets) > MaxServers {
		return nil, 0, tooMany(len(targets))
	}
	return targets, ttl, nil
}

// host is what is known of a target.
type host struct {
	addresses []netip.Addr // none: it has none, or does not exist
	ttl       time.Duration
}

// askHost asks for the addresses of a target.
func (s DNS) askHost(ctx context.Context, r *resolver, name string) (host, error) {
	h := host{ttl: maxTTL}
	kinds := []uint16{dns.TypeA, dns.TypeAAAA}
	switch s.Family {
	case 4:
		kinds = kinds[:1]
	case 6:
		kinds = kinds[1:]
	}
	for _, kind := range kinds {
		records, err := r.ask(ctx, name, kind)
		if err != nil && !errors.Is(err, errNoName) {
			return host{}, err
		}
		for _, record := range records {
			var ip net.IP
			switch record := record.(type) {
			case *dns.A:
				ip = record.A
			case *dns.AAAA:
				ip = record.AAAA
			default:
				continue
			}
			if addr, fits := netip.AddrFromSlice(ip); fits {
				h.addresses = append(h.addresses, addr.Unmap())
				h.ttl = min(h.ttl, seconds(record.Header().Ttl))
			}
		}
		if len(h.addresses) > 0 {
			break
		}
	}
	return h, nil
}

// entries are the servers that a record stands for.
func (h host) entries(srv *dns.SRV) []Entry {
	target := strings.TrimSuffix(dns.CanonicalName(srv.Target), ".")
	port := strconv.Itoa(int(srv.Port))
	labels := map[string]string{LabelGroup: strconv.Itoa(int(srv.Priority))}
	if len(h.addresses) == 0 {
		return []Entry{{Name: target + ":" + port, Labels: labels, Fault: "the DNS has no address for it"}}
	}
	entries := make([]Entry, 0, len(h.addresses))
	for _, addr := range h.addresses {
		name := target + ":" + nameOf(addr, srv.Port)
		if len(name) > maxWord {
			name = ""
		}
		entries = append(entries, Entry{Name: name, Target: net.JoinHostPort(addr.String(), port), Labels: labels})
	}
	return entries
}

// maxTTL is the longest that there is (RFC 2181 section 8).
const maxTTL = (1<<31 - 1) * time.Second

// seconds reads a TTL. One with the highest bit set is 0 (RFC 2181 section 8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
