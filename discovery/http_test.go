package discovery

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// board is a list with a version, whose readers can wait for the next.
type board struct {
	mu      sync.Mutex
	version uint64
	body    []byte
	next    chan struct{}
}

func newBoard(body []byte) *board {
	return &board{version: 1, body: body, next: make(chan struct{})}
}

// set replaces the list.
func (b *board) set(body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	b.body = body
	close(b.next)
	b.next = make(chan struct{})
}

// read is the list once its version is another than known, or after wait.
func (b *board) read(ctx context.Context, known uint64, wait time.Duration) ([]byte, uint64) {
	deadline := time.After(wait)
	for {
		b.mu.Lock()
		body, version, next := b.body, b.version, b.next
		b.mu.Unlock()
		if version != known {
			return body, version
		}
		select {
		case <-ctx.Done():
			return body, version
		case <-deadline:
			return body, version
		case <-next:
		}
	}
}

// sdServer speaks http_sd, with ETags, and holds answers where it can.
type sdServer struct {
	*board
	holds, says bool
	asked       atomic.Int64
	broken      atomic.Bool
}

func (s *sdServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if s.broken.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	known, _ := strconv.ParseUint(strings.Trim(r.Header.Get("If-None-Match"), `"`), 10, 64)
	var wait time.Duration
	if seconds, prefers := strings.CutPrefix(r.Header.Get("Prefer"), "wait="); s.holds && prefers {
		n, _ := strconv.Atoi(seconds)
		wait = time.Duration(n) * time.Second
		if s.says {
			w.Header().Set("Preference-Applied", "wait="+seconds)
		}
	}
	body, version := s.read(r.Context(), known, wait)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, version))
	if version == known {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(body)
}

// serve runs handler until the test ends.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // first: an answer may be held
	return server.URL
}

func TestHTTPInterval(t *testing.T) {
	endpoint := &sdServer{board: newBoard(listOf("a:1"))}
	h := hear(t, HTTP{URL: serve(t, endpoint), Interval: 20 * time.Millisecond, Timeout: patience}.Run)
	first := h.next()
	want(t, "first", "[a:1]", first.String())
	// What is not modified is confirmed by the list itself.
	if again := h.next(); &again.entries[0] != &first.entries[0] {
		t.Errorf("told %v after %v", again, first)
	}
	endpoint.set(listOf("b:1"))
	h.until("[b:1]")
	endpoint.set(listOf())
	h.until("[]")
}

// TestHTTPLongPoll: changes are told at once, and nothing is asked in vain.
func TestHTTPLongPoll(t *testing.T) {
	for _, says := range []bool{true, false} {
		t.Run(fmt.Sprintf("says so %v", says), func(t *testing.T) {
			endpoint := &sdServer{board: newBoard(listOf("a:1")), holds: true, says: says}
			h := hear(t, HTTP{URL: serve(t, endpoint), Interval: time.Hour, Timeout: patience, Wait: time.Minute}.Run)
			h.isNext("[a:1]")
			var took []time.Duration
			for i := range quickly - 1 {
				list := fmt.Sprintf("x:%d", i)
				time.Sleep(2 * apart) // so that it waits again
				start := time.Now()
				endpoint.set(listOf(list))
				told := h.next()
				want(t, "told", "["+list+"]", told.String())
				took = append(took, told.at.Sub(start))
			}
			quick(t, took, 50*time.Millisecond)
			if n := endpoint.asked.Load(); n > quickly+1 {
				t.Errorf("asked %d times for %d lists", n, quickly)
			}
		})
	}
}

// TestHTTPHeld: an endpoint that does not say so is known by its answers.
func TestHTTPHeld(t *testing.T) {
	endpoint := &sdServer{board: newBoard(listOf("a:1")), holds: true}
	h := hear(t, HTTP{URL: serve(t, endpoint), Interval: time.Hour, Timeout: patience, Wait: time.Second}.Run)
	for range 4 { // each after a second without a change
		h.isNext("[a:1]")
	}
	endpoint.set(listOf("b:1"))
	h.isNext("[b:1]")
}

// TestHTTPBack: that the endpoint is back is told at once, though its list is the
// same, and then its answers are held again.
func TestHTTPBack(t *testing.T) {
	endpoint := &sdServer{board: newBoard(listOf("a:1")), holds: true}
	h := hear(t, HTTP{URL: serve(t, endpoint), Interval: time.Hour, Timeout: patience, Wait: 10 * time.Minute}.Run)
	h.isNext("[a:1]")
	time.Sleep(2 * apart) // so that it waits again
	endpoint.broken.Store(true)
	endpoint.set(listOf("a:1")) // ends the request that is held
	h.until("error: ")
	endpoint.broken.Store(false)
	h.until("[a:1]")
	time.Sleep(2 * apart)
	endpoint.set(listOf("b:1"))
	h.isNext("[b:1]")
}

// TestHTTPDoesNotHold: an endpoint that answers at once is found out with one
// request, and one that says it holds or has something new each time is asked
// once a second.
func TestHTTPDoesNotHold(t *testing.T) {
	plain := &sdServer{board: newBoard(listOf("a:1"))}
	var liars, shufflers atomic.Int64
	for name, tt := range map[string]struct {
		handler http.Handler
		asked   *atomic.Int64
		most    int64
	}{
		"answers at once": {plain, &plain.asked, 2},
		"says it holds": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			liars.Add(1)
			w.Header().Set("Preference-Applied", "wait=60")
			w.Header().Set("ETag", `"x"`)
			w.Write(listOf("a:1"))
		}), &liars, quickly + 3},
		"differs each time": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := shufflers.Add(1)
			w.Header().Set("ETag", strconv.FormatInt(n, 10))
			w.Write(listOf(fmt.Sprintf("a:%d", n)))
		}), &shufflers, quickly + 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hear(t, HTTP{URL: serve(t, tt.handler), Interval: time.Hour, Timeout: patience, Wait: time.Minute}.Run)
			time.Sleep(1500 * time.Millisecond) // what is counted is what comes in this time
			if n := tt.asked.Load(); n < 2 || n > tt.most {
				t.Errorf("asked %d times, want 2 to %d", n, tt.most)
			}
		})
	}
}

func TestHTTPFaults(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/token", []byte("s3cret\n"), 0o600))
	must(t, os.WriteFile(dir+"/empty", []byte("\n"), 0o600))
	must(t, os.WriteFile(dir+"/long", []byte(strings.Repeat("x", maxToken+1)), 0o600))
	must(t, os.WriteFile(dir+"/lines", []byte("a\nX-Other: b"), 0o600))

	var stolen atomic.Bool
	thief := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stolen.Store(true) }))
	mux := http.NewServeMux()
	answer := func(path string, f func(w http.ResponseWriter)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { f(w) })
	}
	answer("/503", func(w http.ResponseWriter) { http.Error(w, "no\x1b[31m quorum\nmore", 503) })
	answer("/html", func(w http.ResponseWriter) { io.WriteString(w, "<html>log in</html>") })
	answer("/403", func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(403)
		io.WriteString(w, "<html>")
	})
	answer("/304", func(w http.ResponseWriter) { w.WriteHeader(304) })
	answer("/204", func(w http.ResponseWriter) { w.WriteHeader(204) })
	answer("/empty", func(w http.ResponseWriter) {})
	answer("/cut", func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		w.Write(listOf("a:1"))
	})
	answer("/big", func(w http.ResponseWriter) {
		for range MaxBytes/1024 + 1 {
			if _, err := w.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	answer("/bomb", func(w http.ResponseWriter) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.Copy(z, io.LimitReader(zeros{}, MaxBytes+1))
		z.Close()
	})
	answer("/headers", func(w http.ResponseWriter) { w.Header().Set("X", strings.Repeat("x", 1<<20)) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.Handle("/steal", http.RedirectHandler(thief, 302))
	mux.Handle("/loop", http.RedirectHandler("/loop", 302))
	mux.Handle("/moved", http.RedirectHandler("/good", 302))
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		w.Write(listOf(fmt.Sprintf("%s,%s,%s:1", user, password, r.Header.Get("Authorization"))))
	})
	base := serve(t, mux)
	host := strings.TrimPrefix(base, "http://")
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, refused.Close())

	for _, tt := range []struct{ url, token, want string }{
		{base + "/503", "", "error: asking BASE/503: it answered 503 Service Unavailable: no?[31m quorum"},
		{base + "/html", "", "error: reading the answer of BASE/html: parsing JSON, after byte 0: invalid character '<' looking for beginning of value"},
		{base + "/403", "", "error: asking BASE/403: it answered 403 Forbidden"},
		{base + "/304", "", "error: asking BASE/304: it answered 304 Not Modified"},
		{base + "/204", "", "error: asking BASE/204: it answered 204 No Content"},
		{base + "/empty", "", "error: reading the answer of BASE/empty: parsing JSON: it is empty"},
		{base + "/cut", "", "error: reading the answer of BASE/cut: unexpected EOF"},
		{base + "/big", "", "error: reading the answer of BASE/big: there are more than 16777216 bytes"},
		{base + "/bomb", "", "error: reading the answer of BASE/bomb: there are more than 16777216 bytes"},
		{base + "/headers", "", "error: asking BASE/headers: net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 65536 bytes; aborted"},
		{base + "/hang", "", "error: asking BASE/hang: timeout after 1s"},
		{base + "/drip", "", "error: reading the answer of BASE/drip: timeout after 1s"},
		{base + "/steal", "token", "error: asking BASE/steal: it redirects to another host"},
		{base + "/loop", "", "error: asking BASE/loop: it redirects more than 5 times"},
		{base + "/good", "none", "error: opening the token: open " + dir + "/none: no such file or directory"},
		{base + "/good", "empty", "error: reading the token: " + dir + "/empty is empty"},
		{base + "/good", "long", "error: reading the token: " + dir + "/long has more than 16384 bytes"},
		{base + "/good", "lines", "error: reading the token: " + dir + "/lines holds more than one word"},
		{"http://user:s3cret@" + host + "/503?key=s3cret", "", "error: asking BASE/503: it answered 503 Service Unavailable: no?[31m quorum"},
		{"http://user:s3cret@" + refused.Addr().String() + "/?key=s3cret", "",
			"error: asking http://" + refused.Addr().String() + "/: dial tcp " + refused.Addr().String() + ": connect: connection refused"},
		{"http://%zz/?key=s3cret", "", "error: asking of a URL that is none: invalid URL escape \"%zz\""},
		{base + "/good", "", "[,,:1]"},
		{base + "/good", "token", "[,,Bearer s3cret:1]"},
		{"http://user:s3cret@" + host + "/good", "", "[user,s3cret,Basic dXNlcjpzM2NyZXQ=:1]"},
		{base + "/moved", "token", "[,,Bearer s3cret:1]"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			source := HTTP{URL: tt.url, Interval: time.Hour, Timeout: time.Second}
			if strings.HasSuffix(tt.url, "/big") || strings.HasSuffix(tt.url, "/bomb") {
				source.Timeout = patience
			}
			if tt.token != "" {
				source.TokenFile = filepath.Join(dir, tt.token)
			}
			h := hear(t, source.Run)
			want(t, "told", tt.want, strings.ReplaceAll(h.next().String(), base, "BASE"))
			if strings.Contains(source.String(), "s3cret") {
				t.Errorf("the source is called %s", source)
			}
		})
	}
	t.Cleanup(func() {
		if stolen.Load() {
			t.Error("a redirect to another host was followed")
		}
	})
}

// zeros is what compresses best.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestHTTPHostile: what an endpoint says goes through the gate.
func TestHTTPHostile(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `[
			{"targets": ["192.0.2.1:80", "192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.2:0", "192.0.2.2:99999"]},
			{"targets": ["192.0.2.3:80"], "labels": {"name": "web 3;\ndisable server web/web-1"}},
			{"targets": ["192.0.2.4:80"], "labels": {"zone": "%s"}},
			{"targets": ["192.0.2.5:80"], "labels": {"other": "%[1]s"}}
		]`, strings.Repeat("x", 1<<20))
	}))
	told := make(chan struct{}, 1)
	o := New((&journal{}).logger(), "", func() { told <- struct{}{} })
	defer o.Close()
	o.Set(map[string]Source{"web": HTTP{URL: url, Interval: time.Hour, Timeout: patience}})
	<-told
	want(t, "servers", []string{"192.0.2.1:80", "192.0.2.5:80", "2001:db8::1.80"}, names(t, o, "web"))
	state, _ := o.State("web")
	want(t, "refused", []Refusal{
		{`"web 3;\ndisable server web/web-1"`, `the name has " " in it, and may have letters, digits and . _ : -`},
		{"192.0.2.1:80", "it is in the list twice"},
		{"192.0.2.2:0", "the port 0 is not between 1 and 65535"},
		{"192.0.2.2:99999", "the port 99999 is not between 1 and 65535"},
		{"192.0.2.4:80", "the zone has 1048576 bytes, and 255 is the most"},
	}, state.List.Refused)
	want(t, "refused in all", 5, state.List.RefusedTotal)
}

func TestPace(t *testing.T) {
	var p pace
	for range quickly {
		want(t, "gap in a burst", apart, p.gap(time.Millisecond))
	}
	want(t, "gap after a burst", heldAfter-time.Millisecond, p.gap(time.Millisecond))
	want(t, "gap after a held answer", apart, p.gap(time.Minute))
	want(t, "gap in the next burst", apart, p.gap(0))

	for _, tt := range []struct {
		n        int
		interval time.Duration
		want     time.Duration
	}{
		{1, 10 * time.Second, time.Second},
		{2, 10 * time.Second, 2 * time.Second},
		{5, 10 * time.Second, 16 * time.Second},
		{6, 10 * time.Second, 30 * time.Second},
		{1 << 40, 10 * time.Second, 30 * time.Second},
		{1, time.Minute, time.Second},
		{7, time.Minute, time.Minute},
		{1, 100 * time.Millisecond, 100 * time.Millisecond},
		{9, 100 * time.Millisecond, 25600 * time.Millisecond},
	} {
		for range 100 {
			if got := backoff(tt.n, tt.interval); got < tt.want*9/10 || got > tt.want*11/10 {
				t.Errorf("backoff(%d, %v) = %v, want about %v", tt.n, tt.interval, got, tt.want)
			}
		}
	}
}
