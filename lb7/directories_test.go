package lb7

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

const directoryConfig = `
defaults base
	mode http
	timeout connect 2s
	timeout client 20s
	timeout server 20s
frontend in from base
	bind 127.0.0.1:PORT
	use_backend %[req.hdr(host),host_only,lower,map(MAP)]
	default_backend misses
backend misses from base
	server lb7d 127.0.0.1:LISTEN
frontend back from base
	bind unix@DIR/back.sock
	http-request set-var(txn.backend) req.hdr(x-lb7d-backend)
	use_backend %[var(txn.backend)]
backend pod0 from base
	http-request return status 200 content-type text/plain string pod0
backend pod1 from base
	http-request return status 200 content-type text/plain string pod1
`

// A directory in lb7d: its status, what the operator asks, and a reload that
// changes it while hosts are being looked up.
func TestDirectories(t *testing.T) {
	var calls atomic.Int64
	book := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		host := path.Base(r.URL.Path)
		if strings.HasPrefix(host, "none") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "pod%d\n", len(host)%2)
	}))
	defer book.Close()
	port, listen := haproxytest.FreePort(t), haproxytest.FreePort(t)
	file := filepath.Join(t.TempDir(), "pods.map")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h := haproxytest.Start(t, strings.NewReplacer("PORT", fmt.Sprint(port), "LISTEN", fmt.Sprint(listen), "MAP", file).Replace(directoryConfig))
	tables := func(more string) string {
		return fmt.Sprintf(`
[haproxy]
socket = %q
[directory.pods]
url = "%s/{host}"
map = %q
listen = "127.0.0.1:%d"
forward = "%s/back.sock"
%s
`, h.Socket, book.URL, file, listen, h.Dir, more)
	}
	i := newInstance(t, tables("")).start()
	serving := func(st *control.LB7Status) bool {
		return len(st.Directories) == 1 && st.Directories[0].State == "serving" && st.State == "running"
	}
	i.await("a directory that serves", serving)
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	get := func(host string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, url, nil)
		req.Host = host
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, text := get("a.example.org"); status != 200 || text != "pod1" {
		t.Errorf("a new host: %d %q", status, text)
	}
	if status, _ := get("none.example.org"); status != 404 {
		t.Errorf("an unknown host: %d", status)
	}
	st := i.await("its line", func(st *control.LB7Status) bool { return serving(st) && st.Directories[0].InMap == 1 })
	if d := st.Directories[0]; d.Hosts != 1 || d.Unknown != 1 || d.Counters.Misses != 2 || d.Counters.Calls != 2 || len(d.Counters.Buckets) == 0 {
		t.Errorf("status: %+v", d)
	}

	a, err := i.client.DirectoryLookup(t.Context(), control.DirectoryRequest{Host: "A.example.org:80"})
	if err != nil || a.Backend != "pod1" || !a.Cached || a.Host != "a.example.org" {
		t.Errorf("lookup: %+v, %v", a, err)
	}
	if _, err := i.client.DirectoryLookup(t.Context(), control.DirectoryRequest{Host: "no host"}); err == nil || !strings.Contains(err.Error(), "not a host's name") {
		t.Errorf("lookup of no host: %v", err)
	}
	if _, err := i.client.DirectoryForget(t.Context(), control.DirectoryRequest{Host: "a.example.org", Directory: "others"}); err == nil || !strings.Contains(err.Error(), "there is no [directory.others] in lb7d.toml; there is pods") {
		t.Errorf("forget in no directory: %v", err)
	}
	if f, err := i.client.DirectoryForget(t.Context(), control.DirectoryRequest{Host: "a.example.org"}); err != nil || !f.Known {
		t.Errorf("forget: %+v, %v", f, err)
	}
	before := calls.Load()
	get("a.example.org")
	if n := calls.Load() - before; n != 1 {
		t.Errorf("%d calls for a forgotten host, want 1", n)
	}

	// Reloads that change it, while new hosts come.
	stop := make(chan struct{})
	ended := make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				ended <- n
				return
			default:
			}
			host := fmt.Sprintf("h%d.example.org", n)
			if status, text := get(host); status != 200 || text != fmt.Sprintf("pod%d", len(host)%2) {
				t.Errorf("%s: %d %q", host, status, text)
			}
		}
	}()
	for n := range 3 {
		time.Sleep(200 * time.Millisecond)
		i.write(tables(fmt.Sprintf("ttl = \"%dh\"", n+1)))
		i.reload <- struct{}{}
	}
	i.await("three reloads", func(st *control.LB7Status) bool { return st.Counters.Reloads == 3 && serving(st) })
	time.Sleep(200 * time.Millisecond)
	close(stop)
	n := <-ended
	if n < 10 {
		t.Errorf("%d hosts are too few to tell anything", n)
	}
	// A host whose request was on the way during a reload may have been found
	// by the one that no longer writes the map: its next request puts it there.
	i.await("the hosts in the map", func(st *control.LB7Status) bool { m := st.Directories[0].InMap; return m > n-20 && m <= n+1 })

	// A change that cannot be made changes nothing.
	i.write(tables("[directory.more]\nurl = \"http://127.0.0.1/{host}\"\nmap = \"/nowhere/m.map\"\nlisten = \"192.0.2.1:1\""))
	i.reload <- struct{}{}
	i.await("a refused reload", func(st *control.LB7Status) bool {
		return st.Counters.ReloadsFailed == 1 && strings.Contains(st.Config.Error, "directory more: listening for misses") && serving(st)
	})
	if status, _ := get("again.example.org"); status != 200 {
		t.Errorf("after a refused reload: %d", status)
	}
	// Without its table it is off, and the map stays.
	i.write(fmt.Sprintf("[haproxy]\nsocket = %q\n", h.Socket))
	i.reload <- struct{}{}
	i.await("no directory", func(st *control.LB7Status) bool { return len(st.Directories) == 0 && st.Config.Error == "" })
	if status, text := get("a.example.org"); status != 200 || text != "pod1" {
		t.Errorf("a known host with the directory off: %d %q", status, text)
	}
}
