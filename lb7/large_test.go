package lb7

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"lb4d/control"
	"lb4d/internal/haproxytest"
	"lb4d/internal/storetest"
	"lb4d/l7/store"
)

// manyConfig has a thousand slots, whose checks come seldom, so that what is
// counted is what lb7d does.
const manyConfig = `
defaults
	mode http
	timeout connect 1s
	timeout client 1s
	timeout server 1s
backend servers
	balance uri
	hash-type consistent
	server-template s 1-1000 127.0.0.2:9 check inter 60s disabled
`

// many is the list of a thousand servers, one of which has that weight.
func many(changed, weight int) []group {
	list := make([]group, 1000)
	for i := range list {
		w := 100
		if i == changed {
			w = weight
		}
		list[i] = group{
			[]string{fmt.Sprintf("127.1.%d.%d:80", i>>8, i&255)},
			map[string]string{"name": fmt.Sprintf("i-%04d", i), "weight": strconv.Itoa(w)},
		}
	}
	return list
}

// manyTables is the configuration for that back end.
func manyTables(socket, source string) string {
	return fmt.Sprintf("[haproxy]\nsocket = %q\n[backend.servers]\nslots = 1000\nprefix = \"s\"\nslot_rest = \"0s\"\nsource = { %s }\n", socket, source)
}

// weightOf asks HAProxy itself, whatever lb7d says.
func weightOf(t *testing.T, socket string, slot int) int {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "get weight servers/s%d\n", slot)
	line, err := bufio.NewReader(conn).ReadString('\n')
	word, _, _ := strings.Cut(line, " ")
	w, numErr := strconv.Atoi(word)
	if err != nil || numErr != nil {
		t.Fatalf("HAProxy says %q, %v", line, err)
	}
	return w
}

// encoded is the list in JSON.
func encoded(t *testing.T, list []group) []byte {
	t.Helper()
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// longPoll is an http_sd endpoint that holds its answer until the list changes.
type longPoll struct {
	mu      sync.Mutex
	body    []byte
	version int
	changed chan struct{}
}

func (l *longPoll) set(body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed != nil {
		close(l.changed)
	}
	l.body, l.version, l.changed = body, l.version+1, make(chan struct{})
}

func (l *longPoll) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tag := func() string { return fmt.Sprintf(`"%d"`, l.version) }
	l.mu.Lock()
	if seconds, ok := strings.CutPrefix(r.Header.Get("Prefer"), "wait="); ok && r.Header.Get("If-None-Match") == tag() {
		changed := l.changed
		l.mu.Unlock()
		n, _ := strconv.Atoi(seconds)
		select {
		case <-changed:
		case <-time.After(time.Duration(n) * time.Second):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Preference-Applied", "wait")
		l.mu.Lock()
	}
	body, etag := l.body, tag()
	l.mu.Unlock()
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// TestThousandServers gives HAProxy a list of a thousand, and then one change
// after the other, by each way in which lb7d can be told. A change of one server
// is one command. The times are asserted with room for a busy machine; -v tells
// them.
func TestThousandServers(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		h := haproxytest.Start(t, manyConfig)
		file := filepath.Join(t.TempDir(), "servers.json")
		replaceJSON(t, file, many(-1, 0))
		i := newInstance(t, manyTables(h.Socket, `file = "`+file+`"`)).start()
		changes(t, []*instance{i}, h.Socket, itself, func(list []group) func() {
			next := file + ".next"
			replaceJSON(t, next, list)
			return func() { rename(t, next, file) }
		})
	})
	t.Run("http", func(t *testing.T) {
		h := haproxytest.Start(t, manyConfig)
		poll := &longPoll{}
		poll.set(encoded(t, many(-1, 0)))
		server := httptest.NewServer(poll)
		t.Cleanup(server.Close)
		i := newInstance(t, manyTables(h.Socket, `http = "`+server.URL+`", interval = "1m", wait = "30s"`)).start()
		changes(t, []*instance{i}, h.Socket, itself, func(list []group) func() {
			body := encoded(t, list)
			return func() { poll.set(body) }
		})
	})
	t.Run("etcd", func(t *testing.T) {
		// What is timed is the host that does not ask the source, from the
		// change of the record in etcd, which is its source.
		etcd := storetest.Etcd(t)
		file := filepath.Join(t.TempDir(), "servers.json")
		replaceJSON(t, file, many(-1, 0))
		var hosts []*instance
		var sockets []string
		for range 2 {
			h := haproxytest.Start(t, manyConfig)
			sockets = append(sockets, h.Socket)
			hosts = append(hosts, newInstance(t, fmt.Sprintf("[store]\netcd = [%q]\n", etcd.URL)+manyTables(h.Socket, `file = "`+file+`"`)).start())
			if len(hosts) == 1 {
				hosts[0].await("the lease", func(st *control.LB7Status) bool { return st.Records[0].Held })
			}
		}
		changes(t, hosts, sockets[1], recordChanges(t, etcd.URL), func(list []group) func() {
			next := file + ".next"
			replaceJSON(t, next, list)
			return func() { rename(t, next, file) }
		})
	})
}

// itself is for sources that the test changes by its own hand.
func itself(changed time.Time) time.Time { return changed }

// recordChanges watches all of etcd, and returns what tells when it first changed
// after a moment.
func recordChanges(t *testing.T, url string) func(time.Time) time.Time {
	t.Helper()
	client, err := store.DialEtcd(store.EtcdOptions{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	var mu sync.Mutex
	var seen []time.Time
	watch := client.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithFilterDelete())
	go func() {
		for answer := range watch {
			for _, event := range answer.Events {
				if strings.Contains(string(event.Kv.Value), "i-0500") {
					mu.Lock()
					seen = append(seen, time.Now())
					mu.Unlock()
				}
			}
		}
	}()
	return func(after time.Time) time.Time {
		mu.Lock()
		defer mu.Unlock()
		for _, at := range seen {
			if at.After(after) {
				return at
			}
		}
		t.Fatal("the change is in HAProxy, and not in etcd")
		return after
	}
}

// changes waits for the thousand, then makes one change after the other and
// times each until the HAProxy at socket has it.
// It begins to count at the moment that begun tells of, which is given that of the
// change.
func changes(t *testing.T, hosts []*instance, socket string, begun func(time.Time) time.Time, prepare func([]group) (publish func())) {
	t.Helper()
	for n, h := range hosts {
		h.await("a thousand servers", func(st *control.LB7Status) bool {
			return len(st.Backends) == 1 && len(st.Backends[0].Servers) == 1000 && st.Backends[0].Servers[999].State == "ready"
		})
		first := regexp.MustCompile(`msg="HAProxy changed".* commands=(\d+) .*took=(\S+)`).FindStringSubmatch(h.log.String())
		if first == nil {
			t.Fatalf("host %d does not say what it did", n)
		}
		took, err := time.ParseDuration(first[2])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("host %d: a thousand servers in %s commands and %v", n, first[1], took)
		if first[1] != "5000" || took > slowed*5*time.Second {
			t.Errorf("host %d: %s commands in %v for a thousand servers", n, first[1], took)
		}
	}
	quiet := func() (sent uint64) {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(1200 * time.Millisecond) {
			before := sent
			sent = 0
			for _, h := range hosts {
				st := h.await("the status", func(st *control.LB7Status) bool { return st.State == "running" })
				sent += st.Backends[0].Sent
				if b := st.Backends[0]; b.Failed > 0 || b.Repaired > 0 {
					t.Fatalf("%d commands failed, %d slots repaired", b.Failed, b.Repaired)
				}
			}
			if sent == before || time.Now().After(deadline) {
				return sent
			}
		}
	}
	const rounds = 10
	before := quiet()
	var times []time.Duration
	for round := range rounds {
		// The same one each time, so that each list is one change away from
		// the one before.
		const changed, weight = 500, 10
		publish := prepare(many(changed, weight+round))
		// What went before has settled, and changes no sooner than one a second
		// are no burst, which a long poll would follow more slowly.
		time.Sleep(1100 * time.Millisecond)
		start := time.Now()
		publish()
		for weightOf(t, socket, changed+1) != weight+round {
			if time.Since(start) > 10*time.Second {
				t.Fatalf("change %d does not come", round)
			}
			time.Sleep(time.Millisecond)
		}
		end := time.Now()
		times = append(times, end.Sub(begun(start)))
	}
	if sent := quiet() - before; sent != uint64(rounds*len(hosts)) {
		t.Errorf("%d commands for %d changes of one server on %d hosts", sent, rounds, len(hosts))
	}
	slices.Sort(times)
	median := times[len(times)/2]
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	t.Logf("a change of one in a thousand, 1 command: median %v, least %v, most %v, of %d", round(median), round(times[0]), round(times[len(times)-1]), rounds)
	if median > slowed*250*time.Millisecond {
		t.Errorf("half of the changes took %v or more", median)
	}
}
