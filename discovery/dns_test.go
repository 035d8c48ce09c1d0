package discovery

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// source asks this server and others.
func (s *nameServer) source(others ...netip.AddrPort) DNS {
	return DNS{
		Name: "_http._tcp.web.test", Servers: append(others, s.addr),
		MinTTL: 20 * time.Millisecond, MaxTTL: time.Hour, Timeout: 500 * time.Millisecond,
	}
}

// once is what a source tells first, its entries sorted.
func once(t *testing.T, s DNS) string {
	t.Helper()
	told := hear(t, s.Run).next()
	slices.SortFunc(told.entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return told.String()
}

func TestDNS(t *testing.T) {
	for _, tt := range []struct {
		name    string
		family  int
		records []string
		want    string
	}{
		{
			"weights, priorities, ports", 0,
			[]string{
				"_http._tcp.web.test. 60 SRV 10 5 80 A.web.test.",
				"_http._tcp.web.test. 60 SRV 10 50 8080 b.web.test.",
				"_http._tcp.web.test. 60 SRV 20 0 80 c.web.test.",
				"a.web.test. 60 A 192.0.2.1", "b.web.test. 60 A 192.0.2.2", "c.web.test. 60 A 192.0.2.3",
			},
			"[a.web.test:192.0.2.1:80=192.0.2.1:80,weight:5,group:10" +
				" b.web.test:192.0.2.2:8080=192.0.2.2:8080,weight:50,group:10" +
				" c.web.test:192.0.2.3:80=192.0.2.3:80,weight:1,group:20]",
		},
		{
			"equal weights are none, several addresses are several servers", 0,
			[]string{
				"_http._tcp.web.test. 60 SRV 0 1 80 a.web.test.",
				"_http._tcp.web.test. 60 SRV 0 1 81 a.web.test.",
				"a.web.test. 60 A 192.0.2.1", "a.web.test. 60 A 192.0.2.2", "a.web.test. 60 AAAA 2001:db8::1",
			},
			"[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0 a.web.test:192.0.2.1:81=192.0.2.1:81,group:0" +
				" a.web.test:192.0.2.2:80=192.0.2.2:80,group:0 a.web.test:192.0.2.2:81=192.0.2.2:81,group:0]",
		},
		{
			"IPv6 where there is no other", 0,
			[]string{"_http._tcp.web.test. 60 SRV 0 0 80 a.web.test.", "a.web.test. 60 AAAA 2001:db8::1"},
			"[a.web.test:2001:db8::1.80=[2001:db8::1]:80,group:0]",
		},
		{
			"IPv6 alone", 6,
			[]string{"_http._tcp.web.test. 60 SRV 0 0 80 a.web.test.", "a.web.test. 60 A 192.0.2.1", "a.web.test. 60 AAAA 2001:db8::1"},
			"[a.web.test:2001:db8::1.80=[2001:db8::1]:80,group:0]",
		},
		{
			"IPv4 alone", 4,
			[]string{"_http._tcp.web.test. 60 SRV 0 0 80 a.web.test.", "a.web.test. 60 AAAA 2001:db8::1"},
			"[a.web.test:80=!the DNS has no address for it,group:0]",
		},
		{
			"a target that does not exist", 0,
			[]string{
				"_http._tcp.web.test. 60 SRV 0 0 80 gone.web.test.", "_http._tcp.web.test. 60 SRV 0 0 80 a.web.test.",
				"a.web.test. 60 A 192.0.2.1",
			},
			"[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0 gone.web.test:80=!the DNS has no address for it,group:0]",
		},
		{
			"aliases", 0,
			[]string{
				"_http._tcp.web.test. 60 CNAME _http._tcp.live.test.", "_http._tcp.live.test. 60 SRV 0 0 80 a.web.test.",
				"a.web.test. 60 CNAME b.web.test.", "b.web.test. 60 A 192.0.2.1",
			},
			"[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0]",
		},
		{"decidedly none", 0, []string{"_http._tcp.web.test. 60 SRV 0 0 0 ."}, "[]"},
		{"no such name", 0, nil, "error: asking SERVER for SRV _http._tcp.web.test: the name does not exist"},
		{"no such record", 0, []string{"_http._tcp.web.test. 60 TXT x"},
			`error: asking for SRV _http._tcp.web.test: it has no such records (an empty list is one with the target ".")`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newNameServer(t, tt.records...)
			source := server.source()
			source.Family = tt.family
			got := strings.ReplaceAll(once(t, source), server.addr.String(), "SERVER")
			want(t, "told", tt.want, got)
		})
	}
}

// TestDNSLarge: what does not fit a packet comes over TCP.
func TestDNSLarge(t *testing.T) {
	var records []string
	for i := range 500 {
		records = append(records,
			fmt.Sprintf("_http._tcp.web.test. 60 SRV 0 0 80 server-%d.web.test.", i),
			fmt.Sprintf("server-%d.web.test. 60 A 10.0.%d.%d", i, i/250, i%250+1))
	}
	server := newNameServer(t, records...)
	source := server.source()
	source.Timeout = patience
	start := time.Now()
	told := hear(t, source.Run).next()
	t.Logf("%d servers after %v", len(told.entries), time.Since(start))
	servers, refused := sift(told.entries, nil)
	if told.err != nil || len(servers) != 500 || len(refused) != 0 {
		t.Errorf("%d servers, %d refused, error %v", len(servers), len(refused), told.err)
	}
	want(t, "first questions", []string{"udp _http._tcp.web.test. SRV", "tcp _http._tcp.web.test. SRV"}, server.questions()[:2])
}

// TestDNSFaults: whatever is missing, there is no short list.
func TestDNSFaults(t *testing.T) {
	records := []string{
		"_http._tcp.web.test. 0 SRV 0 0 80 a.web.test.", "_http._tcp.web.test. 0 SRV 0 0 80 b.web.test.",
		"a.web.test. 0 A 192.0.2.1", "b.web.test. 0 A 192.0.2.2",
	}
	for _, tt := range []struct {
		name, question string
		fault          func(*dns.Msg) *dns.Msg
		want           string
	}{
		{"the service fails", "_http._tcp.web.test. SRV", rcode(dns.RcodeServerFailure), "error: asking SERVER for SRV _http._tcp.web.test: it answered SERVFAIL"},
		{"the service is refused", "_http._tcp.web.test. SRV", rcode(dns.RcodeRefused), "error: asking SERVER for SRV _http._tcp.web.test: it answered REFUSED"},
		{"an odd code", "_http._tcp.web.test. SRV", rcode(14), "error: asking SERVER for SRV _http._tcp.web.test: it answered with code 14"},
		{"silence", "_http._tcp.web.test. SRV", silence, "error: asking SERVER for SRV _http._tcp.web.test: timeout after 500ms"},
		{"a target fails", "b.web.test. A", rcode(dns.RcodeServerFailure), "error: asking SERVER for A b.web.test: it answered SERVFAIL"},
		{"a target is silent", "b.web.test. A", silence, "error: asking SERVER for A b.web.test: timeout after 500ms"},
		{"another question", "b.web.test. A", func(m *dns.Msg) *dns.Msg {
			m.Question[0].Name = "a.web.test."
			return m
		}, "error: asking SERVER for A b.web.test: it answered another question"},
		{"a question for an answer", "b.web.test. A", func(m *dns.Msg) *dns.Msg {
			m.Response = false
			return m
		}, "error: asking SERVER for A b.web.test: it answered another question"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newNameServer(t, records...)
			server.fails(tt.question, tt.fault)
			got := strings.ReplaceAll(once(t, server.source()), server.addr.String(), "SERVER")
			want(t, "told", tt.want, got)
		})
	}
	t.Run("and back", func(t *testing.T) {
		server := newNameServer(t, records[0], records[2])
		h := hear(t, server.source().Run)
		h.isNext("[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0]")
		server.fails("a.web.test. A", rcode(dns.RcodeServerFailure))
		h.until("error: ")
		server.fails("a.web.test. A", nil)
		h.until("[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0]")
		server.set(t, records[1], records[3])
		h.until("[b.web.test:192.0.2.2:80=192.0.2.2:80,group:0]")
	})
}

// TestDNSOlder: a server that knows no EDNS is asked without.
func TestDNSOlder(t *testing.T) {
	server := newNameServer(t, "_http._tcp.web.test. 0 SRV 0 0 80 a.web.test.", "a.web.test. 0 A 192.0.2.1")
	asked := 0
	server.fails("_http._tcp.web.test. SRV", func(m *dns.Msg) *dns.Msg {
		if asked++; asked%2 == 1 { // with EDNS
			return rcode(dns.RcodeFormatError)(m)
		}
		return m
	})
	want(t, "told", "[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0]", once(t, server.source()))
}

// TestDNSServers: a dead resolver costs the first question one timeout, and no
// other.
func TestDNSServers(t *testing.T) {
	server := newNameServer(t, "_http._tcp.web.test. 0 SRV 0 0 80 a.web.test.", "a.web.test. 0 A 192.0.2.1")
	dead := newNameServer(t)
	dead.fails("_http._tcp.web.test. SRV", silence)
	h := hear(t, server.source(dead.addr).Run)
	for range 5 {
		h.isNext("[a.web.test:192.0.2.1:80=192.0.2.1:80,group:0]")
	}
	want(t, "questions to the dead server", []string{"udp _http._tcp.web.test. SRV"}, dead.questions())
}

// TestDNSTTL: the list is asked for again when its first record expires, but
// within the bounds.
func TestDNSTTL(t *testing.T) {
	for _, tt := range []struct {
		name         string
		srv, a       int
		least, most  time.Duration
		from, before time.Duration
	}{
		{"the record's", 60, 1, 0, time.Hour, 900 * time.Millisecond, patience},
		{"the service's", 1, 60, 0, time.Hour, 900 * time.Millisecond, patience},
		{"the least", 0, 0, 700 * time.Millisecond, time.Hour, 600 * time.Millisecond, patience},
		{"the most", 3600, 3600, time.Millisecond, 300 * time.Millisecond, 200 * time.Millisecond, patience},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newNameServer(t,
				fmt.Sprintf("_http._tcp.web.test. %d SRV 0 0 80 a.web.test.", tt.srv),
				fmt.Sprintf("a.web.test. %d A 192.0.2.1", tt.a))
			source := server.source()
			source.MinTTL, source.MaxTTL = tt.least, tt.most
			h := hear(t, source.Run)
			first := h.next()
			if d := h.next().at.Sub(first.at); d < tt.from || d > tt.before {
				t.Errorf("asked again after %v, want %v to %v", d, tt.from, tt.before)
			}
		})
	}
	want(t, "a TTL with the highest bit", 0, seconds(1<<31))
	want(t, "the longest TTL", maxTTL, seconds(1<<31-1))
}

func TestDNSResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(path, []byte("nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n"), 0o644))
	var r resolver
	must(t, r.use(nil, path))
	want(t, "servers", []string{"192.0.2.53:53", "[2001:db8::53]:53", "[fe80::1%eth0]:53"}, r.servers)
	must(t, os.WriteFile(path, nil, 0o644))
	if err := r.use(nil, path); err == nil {
		t.Error("no resolver is good enough")
	}
	if err := r.use(nil, path+"x"); err == nil {
		t.Error("no file is good enough")
	}
}

// TestDNSEnds: an answer that does not come holds up nobody who wants to end.
func TestDNSEnds(t *testing.T) {
	server := newNameServer(t)
	server.fails("_http._tcp.web.test. SRV", silence)
	source := server.source()
	source.Timeout = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		source.Run(ctx, func([]Entry, error) { t.Error("there is nothing to tell") })
	}()
	for len(server.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}

// FuzzSRV: whatever a resolver sends, what comes of it can be sifted.
func FuzzSRV(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("_http._tcp.web.test.", dns.TypeSRV)
	for _, text := range []string{"x. 1 SRV 1 2 3 a.", "x. 1 SRV 1 65535 0 .", `x. 1 SRV 1 2 3 a\ b\;c.`, "x. 1 CNAME y."} {
		rr, _ := dns.NewRR(text)
		m.Answer = append(m.Answer, rr)
	}
	data, _ := m.Pack()
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m dns.Msg
		if m.Unpack(data) != nil {
			return
		}
		targets, ttl, err := serviceRecords(m.Answer)
		if err != nil {
			return
		}
		if ttl < 0 || ttl > maxTTL {
			t.Errorf("TTL %v", ttl)
		}
		addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		for _, srv := range targets {
			servers, refused := sift(host{addresses: addresses}.entries(srv), nil)
			if len(servers)+len(refused) != 2 {
				t.Errorf("%v became %d servers and %d refusals", srv, len(servers), len(refused))
			}
			for _, s := range servers {
				requireFit(t, s)
			}
		}
	})
}
