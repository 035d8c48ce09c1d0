package lb7

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

// startEtcd runs Debian's etcd and returns its URL.
func startEtcd(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("LAB_REQUIRED") == "1" {
			t.Fatal("no etcd here; apt-get install etcd-server")
		}
		t.Skip("no etcd here; apt-get install etcd-server")
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", haproxytest.FreePort(t))
	peer := fmt.Sprintf("http://127.0.0.1:%d", haproxytest.FreePort(t))
	cmd := exec.Command(program, "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(url + "/health"); err == nil {
			resp.Body.Close()
			return url
		}
		if time.Now().After(deadline) {
			t.Fatal("etcd does not answer")
		}
	}
}

// TestTwoHostsAgree has two HAProxys with an lb7d each share a record in etcd:
// one of them asks the source, both send every key to the same server, and the
// other takes over when the first ends.
func TestTwoHostsAgree(t *testing.T) {
	url := startEtcd(t)
	f := newFarm(t, 9)
	f.list(nil, numbered(1, 8)...)
	var proxies []*proxy
	var hosts []*instance
	for range 2 {
		p := newProxy(t, proxyConfig)
		proxies = append(proxies, p)
		hosts = append(hosts, newInstance(t, fmt.Sprintf("[store]\netcd = [%q]\nlease = \"2s\"\n", url)+p.tables(`file = "`+f.file+`"`, "")).start())
	}
	agree := func(names ...string) {
		t.Helper()
		for _, h := range hosts {
			h.settled(names...)
		}
		a, b := owners(t, proxies[0].url, 300), owners(t, proxies[1].url, 300)
		for k := range a {
			if a[k] != b[k] {
				t.Fatalf("key %d goes to %s by the one and to %s by the other", k, a[k], b[k])
			}
		}
	}
	agree(numbered(1, 8)...)
	held := func(i int) bool {
		st, err := hosts[i].client.LB7Status(t.Context())
		return err == nil && st.Records[0].Held
	}
	if held(0) == held(1) {
		t.Errorf("the lease: %v and %v, want one", held(0), held(1))
	}
	first := 0
	if held(1) {
		first = 1
	}
	hosts[first].stop()
	hosts[1-first].await("the lease", func(st *control.LB7Status) bool { return st.Records[0].Held })
	f.list(nil, numbered(2, 9)...)
	hosts[1-first].settled(numbered(2, 9)...)
	hosts[first].start()
	agree(numbered(2, 9)...)
}
