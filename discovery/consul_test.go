package discovery

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// consulServer is the health endpoint of an agent, for one service.
type consulServer struct {
	*board
	service string
	asked   atomic.Int64
	// ahead is taken from each index: more of it is a restored snapshot.
	ahead atomic.Uint64

	mu      sync.Mutex
	token   string
	fault   string   // answered in place of the list
	queries []string // as they came
}

func (s *consulServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.mu.Lock()
	s.queries = append(s.queries, r.URL.RawQuery)
	token, fault := s.token, s.fault
	s.mu.Unlock()
	switch {
	case r.URL.EscapedPath() != "/v1/health/service/"+s.service:
		http.Error(w, "Invalid URL path: not found", http.StatusNotFound)
		return
	case r.Header.Get("X-Consul-Token") != token:
		http.Error(w, "rpc error making call: Permission denied: anonymous token", http.StatusForbidden)
		return
	case r.URL.Query().Get("passing") == "":
		http.Error(w, "this server gives passing instances only", http.StatusBadRequest)
		return
	case fault != "":
		http.Error(w, fault, http.StatusInternalServerError)
		return
	}
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil && index > 0 {
		wait = 5 * time.Minute
	}
	if index == 0 {
		wait = 0
	}
	known := index + s.ahead.Load()
	if version := s.current(); known > version {
		// The index is one of the time before: Consul waits for it to be
		// passed, or until the time is over.
		known = version
	}
	body, version := s.read(r.Context(), known, wait)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Consul-Index", strconv.FormatUint(version-s.ahead.Load(), 10))
	w.Write(body)
}

// current is the version of the list.
func (b *board) current() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// breaks has the server answer with a fault from now on; "": no more.
func (s *consulServer) breaks(fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// instances is an answer with the service at these addresses.
func instances(addresses ...string) []byte {
	var all []string
	for i, address := range addresses {
		all = append(all, fmt.Sprintf(`{
			"Node": {"ID": "40e4a748", "Node": "node%d", "Address": "192.0.2.200", "Datacenter": "dc1", "Meta": {"zone": "z"}},
			"Service": {"ID": "web", "Service": "web", "Tags": ["a"], "Address": %q, "Port": 80, "Meta": null,
				"Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false},
			"Checks": [{"Status": "passing"}]}`, i, address))
	}
	return []byte("[" + strings.Join(all, ",") + "]")
}

func TestConsul(t *testing.T) {
	agent := &consulServer{board: newBoard(instances("192.0.2.1")), service: "web%2Fblue%20x"}
	agent.version = 1000
	source := Consul{URL: serve(t, agent), Service: "web/blue x", Datacenter: "dc2", Tag: "a b", Wait: time.Minute, Timeout: patience}
	h := hear(t, source.Run)
	h.isNext("[node0:web=192.0.2.1:80,zone:z]")
	var took []time.Duration
	for i := range quickly - 2 {
		address := fmt.Sprintf("192.0.2.%d", 100+i)
		time.Sleep(2 * apart) // so that it waits again
		start := time.Now()
		agent.set(instances(address))
		told := h.next()
		want(t, "told", "[node0:web="+address+":80,zone:z]", told.String())
		took = append(took, told.at.Sub(start))
	}
	quick(t, took, 50*time.Millisecond)
	agent.mu.Lock()
	want(t, "queries", []string{
		"dc=dc2&passing=1&tag=a+b",
		"dc=dc2&index=1000&passing=1&tag=a+b&wait=60000ms",
		"dc=dc2&index=1001&passing=1&tag=a+b&wait=60000ms",
	}, agent.queries[:3])
	agent.mu.Unlock()
	if n := agent.asked.Load(); n > quickly+1 {
		t.Errorf("asked %d times for %d lists", n, quickly-1)
	}
}

// TestConsulIndex: an index that went backwards is not waited for.
func TestConsulIndex(t *testing.T) {
	agent := &consulServer{board: newBoard(instances("192.0.2.1")), service: "web"}
	agent.version = 1000
	h := hear(t, Consul{URL: serve(t, agent), Service: "web", Wait: time.Hour, Timeout: patience}.Run)
	h.isNext("[node0:web=192.0.2.1:80,zone:z]")
	time.Sleep(2 * apart)
	agent.ahead.Store(900)
	agent.set(instances("192.0.2.2")) // its index is 101
	h.isNext("[node0:web=192.0.2.2:80,zone:z]")
	h.isNext("[node0:web=192.0.2.2:80,zone:z]") // without waiting
	agent.set(instances("192.0.2.3"))
	h.isNext("[node0:web=192.0.2.3:80,zone:z]")
	agent.mu.Lock()
	defer agent.mu.Unlock()
	want(t, "queries", []string{
		"passing=1",
		"index=1000&passing=1&wait=3600000ms",
		"passing=1",
		"index=101&passing=1&wait=3600000ms",
	}, agent.queries[:4])
}

func TestFollowing(t *testing.T) {
	for _, tt := range []struct{ index, next, want uint64 }{
		{0, 17, 17},
		{17, 17, 17},
		{17, 18, 18},
		{17, 16, 0},
		{17, 0, 0},
		{0, 0, 1},
		{1, 0, 0},
		{1, 1, 1},
	} {
		if got := following(tt.index, tt.next); got != tt.want {
			t.Errorf("following(%d, %d) = %d, want %d", tt.index, tt.next, got, tt.want)
		}
	}
}

// TestConsulReturnsAtOnce: an agent that holds nothing, such as one whose index
// is always 0, is not asked without end.
func TestConsulReturnsAtOnce(t *testing.T) {
	var asked atomic.Int64
	h := hear(t, Consul{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("X-Consul-Index", "0")
		w.Write(instances())
	})), Service: "web", Wait: time.Minute, Timeout: patience}.Run)
	h.isNext("[]")
	time.Sleep(1500 * time.Millisecond) // what is counted is what comes in this time
	if n := asked.Load(); n < 2 || n > quickly+3 {
		t.Errorf("asked %d times", n)
	}
}

func TestConsulFaults(t *testing.T) {
	agent := &consulServer{board: newBoard(instances("192.0.2.1")), service: "web"}
	url := serve(t, agent)
	h := hear(t, Consul{URL: url, Service: "web", Wait: 10 * time.Minute, Timeout: patience}.Run)
	h.isNext("[node0:web=192.0.2.1:80,zone:z]")
	agent.breaks("No cluster leader")
	agent.set(instances("192.0.2.1")) // ends the request that is held
	h.until("error: asking " + url + "/v1/health/service/web: it answered 500 Internal Server Error: No cluster leader")
	agent.breaks("")
	h.until("[node0:web=192.0.2.1:80,zone:z]") // not held, though nothing changed

	agent.mu.Lock()
	agent.token = "s3cret"
	agent.mu.Unlock()
	agent.set(instances("192.0.2.1"))
	h.until("error: asking " + url + "/v1/health/service/web: it answered 403 Forbidden: rpc error making call: Permission denied: anonymous token")

	other := hear(t, agentOf(t, `[]`, "").Run)
	if got := other.next().String(); !strings.HasSuffix(got, `: its X-Consul-Index is "", is it Consul's?`) {
		t.Errorf("told %s", got)
	}
	other = hear(t, agentOf(t, `[{"Node": 1}]`, "1").Run)
	if got := other.next().String(); !strings.Contains(got, "parsing JSON") {
		t.Errorf("told %s", got)
	}
}

// agentOf is a Consul whose agent answers with a body and an index.
func agentOf(t *testing.T, body, index string) Consul {
	t.Helper()
	return Consul{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if index != "" {
			w.Header().Set("X-Consul-Index", index)
		}
		fmt.Fprint(w, body)
	})), Service: "web", Wait: time.Minute, Timeout: patience}
}

func TestParseConsul(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", `[]`, "[]"},
		{"the node's address", `[{"Node": {"Node": "n", "Address": "192.0.2.9"}, "Service": {"ID": "s", "Port": 8080}}]`, "[n:s=192.0.2.9:8080]"},
		{"IPv6", `[{"Node": {"Node": "n"}, "Service": {"ID": "s", "Address": "2001:db8::1", "Port": 80}}]`, "[n:s=[2001:db8::1]:80]"},
		{"no address", `[{"Node": {"Node": "n"}, "Service": {"ID": "s", "Port": 80}}]`, "[n:s=]"},
		{
			"the service's metadata over the node's",
			`[{"Node": {"Node": "n", "Meta": {"zone": "a", "group": "g", "exclude_from_loadbalancer": "true", "os": "x"}},
			   "Service": {"ID": "s", "Address": "192.0.2.1", "Port": 80, "Meta": {"zone": "b", "exclude_from_loadbalancer": "false"}}}]`,
			"[n:s=192.0.2.1:80,zone:b,group:g,exclude_from_loadbalancer:false]",
		},
		{
			"weights that differ",
			`[{"Node": {"Node": "a"}, "Service": {"Address": "192.0.2.1", "Port": 80, "Weights": {"Passing": 10}}},
			  {"Node": {"Node": "b"}, "Service": {"Address": "192.0.2.2", "Port": 80, "Weights": {"Passing": 1}}},
			  {"Node": {"Node": "c"}, "Service": {"Address": "192.0.2.3", "Port": 80, "Weights": {"Passing": 10}, "Meta": {"weight": "7"}}}]`,
			"[a:=192.0.2.1:80,weight:10 b:=192.0.2.2:80,weight:1 c:=192.0.2.3:80,weight:7]",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entries, err := parseConsul([]byte(tt.text))
			want(t, "entries", tt.want, hearing{entries: entries, err: err}.String())
		})
	}
	for _, text := range []string{``, `{}`, `null`, `[`, `[{}`, `[] x`, `[1]`, `[{"Service": {"Port": "80"}}]`,
		`[` + strings.Repeat(`{},`, MaxServers) + `{}]`} {
		if entries, err := parseConsul([]byte(text)); err == nil {
			t.Errorf("%s is a list of %d", shown(text), len(entries))
		}
	}
}

func TestWeigh(t *testing.T) {
	for _, tt := range []struct {
		weights []int
		want    string
	}{
		{[]int{}, "[]"},
		{[]int{5, 5, 5}, "[  ]"},
		{[]int{0, 0, 0}, "[  ]"},
		{[]int{1, 10, 256}, "[1 10 256]"},
		{[]int{0, 10, 20}, "[1 10 20]"},
		{[]int{-5, 10, 20}, "[1 10 20]"},
		{[]int{1, 32768, 65535}, "[1 128 256]"},
		{[]int{1 << 62, 1, 1 << 62}, "[256 1 256]"},
	} {
		entries := make([]Entry, len(tt.weights))
		weigh(entries, tt.weights)
		got := []string{}
		for _, e := range entries {
			got = append(got, e.Labels[LabelWeight])
		}
		if text := fmt.Sprint(got); text != tt.want {
			t.Errorf("weights %v become %v, want %v", tt.weights, text, tt.want)
		}
	}
}

func FuzzParseConsul(f *testing.F) {
	f.Add(instances("192.0.2.1", "2001:db8::1"))
	f.Add([]byte(`[{"Node":{"Node":"a b"},"Service":{"Port":99999,"Weights":{"Passing":-9223372036854775808},"Meta":{"zone":1}}}]`))
	f.Fuzz(func(t *testing.T, data []byte) { requireList(t, parseConsul, data) })
}
