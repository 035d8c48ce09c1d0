package discovery

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// nameServer is a recursive name server for the records that it is given, over
// UDP and TCP.
type nameServer struct {
	addr netip.AddrPort

	mu      sync.Mutex
	records []dns.RR
	// faults has, by name and type ("x. A"), what is done in place of an
	// answer.
	faults map[string]func(reply *dns.Msg) *dns.Msg
	asked  []string // "udp x. A"
}

// newNameServer runs a server until the test ends.
func newNameServer(t *testing.T, records ...string) *nameServer {
	t.Helper()
	s := &nameServer{faults: make(map[string]func(*dns.Msg) *dns.Msg)}
	s.set(t, records...)
	// A port that is free for both.
	var packets net.PacketConn
	var listener net.Listener
	for range 100 {
		var err error
		packets, err = net.ListenPacket("udp", "127.0.0.1:0")
		must(t, err)
		if listener, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			break
		}
		packets.Close()
	}
	s.addr = netip.MustParseAddrPort(packets.LocalAddr().String())
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		var wg sync.WaitGroup
		wg.Go(func() { server.ActivateAndServe() })
		<-started
		t.Cleanup(func() {
			server.Shutdown()
			wg.Wait()
		})
	}
	return s
}

// set replaces the records.
func (s *nameServer) set(t *testing.T, records ...string) {
	t.Helper()
	var parsed []dns.RR
	for _, record := range records {
		rr, err := dns.NewRR(record)
		must(t, err)
		parsed = append(parsed, rr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = parsed
}

// fails has the server do f in place of an answer.
func (s *nameServer) fails(question string, f func(*dns.Msg) *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil {
		delete(s.faults, question)
	} else {
		s.faults[question] = f
	}
}

// rcode is a fault that is an answer without records.
func rcode(code int) func(*dns.Msg) *dns.Msg {
	return func(m *dns.Msg) *dns.Msg {
		m.Rcode, m.Answer = code, nil
		return m
	}
}

// silence is a fault that is no answer.
func silence(*dns.Msg) *dns.Msg { return nil }

func (s *nameServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	question := query.Question[0]
	name := strings.ToLower(question.Name)
	words := name + " " + dns.TypeToString[question.Qtype]
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true

	s.mu.Lock()
	s.asked = append(s.asked, w.RemoteAddr().Network()+" "+words)
	exists := false
	for i := 0; i < len(s.records); i++ {
		record := s.records[i]
		if strings.ToLower(record.Header().Name) != name {
			continue
		}
		exists = true
		if alias, is := record.(*dns.CNAME); is {
			reply.Answer = append(reply.Answer, record)
			name, i = alias.Target, -1
		} else if record.Header().Rrtype == question.Qtype {
			reply.Answer = append(reply.Answer, record)
		}
	}
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	fault := s.faults[words]
	s.mu.Unlock()

	if fault != nil {
		if reply = fault(reply); reply == nil {
			return
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		reply.Truncate(size)
	}
	w.WriteMsg(reply)
}

// questions are those asked since it was last called.
func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}
