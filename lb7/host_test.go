package lb7

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

// drainable is a HAProxy whose front end fails its monitor while its host is
// drained, with the state map at MAP.
const drainable = proxyConfig + `
frontend check from base
	bind 127.0.0.1:CHECK
	monitor-uri /healthcheck
	monitor fail if !{ str(host),map(MAP,up) -m str up }
`

// TestDrain drains a host: the LB4 hosts' check fails, requests are served on,
// and sessions are counted. No server is there to look drained in its place.
func TestDrain(t *testing.T) {
	f := newFarm(t, 2)
	f.list(nil, numbered(1, 2)...)
	check := haproxytest.FreePort(t)
	listen := haproxytest.FreePort(t)
	dir := t.TempDir()
	stateMap := filepath.Join(dir, "host.map")
	if err := os.WriteFile(stateMap, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, strings.NewReplacer("MAP", stateMap, "CHECK", fmt.Sprint(check)).Replace(drainable))
	file := filepath.Join(dir, "agent-check")
	tables := p.tables(`file = "`+f.file+`"`, "")
	tables = strings.Replace(tables, "[backend.servers]", fmt.Sprintf("state_map = %q\n[backend.servers]", stateMap), 1) +
		fmt.Sprintf("[agent_check]\nfile = %q\nlisten = [\"127.0.0.1:%d\"]\n", file, listen)
	i := newInstance(t, tables).start()
	i.settled(numbered(1, 2)...)

	status := func() int {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthcheck", check))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	becomes := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); status() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the monitor answers %d, want %d", status(), want)
			}
		}
	}
	becomes(200)

	// A request that goes on while the host is drained.
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := func() {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, "GET /key1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		if n, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
			t.Fatalf("answer %q, %v", buf[:n], err)
		}
	}
	request()

	a, err := i.client.HostDrain(t.Context(), control.HostDrainRequest{Reason: "new disk"})
	if err != nil {
		t.Fatal(err)
	}
	if !a.Changed || a.Sessions < 1 || !strings.Contains(a.Answer, "drain # new disk") {
		t.Errorf("drain is answered %+v", a)
	}
	becomes(503)
	request()
	st := i.await("a drained host", func(st *control.LB7Status) bool { return st.AgentCheck != nil && !st.AgentCheck.Serving })
	if st.AgentCheck.Reason != "new disk" || !strings.Contains(st.Summary, "drained") {
		t.Errorf("the status is %q with %+v", st.Summary, st.AgentCheck)
	}
	// The map's file says so too, so that a HAProxy that starts now agrees.
	p.Reload(t)
	becomes(503)

	conn.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if a, err = i.client.Sessions(t.Context()); err == nil && a.Sessions == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sessions do not end: %+v, %v", a, err)
		}
	}
	if a, err = i.client.HostUndrain(t.Context(), control.HostDrainRequest{}); err != nil || !a.Changed {
		t.Errorf("undrain is answered %+v, %v", a, err)
	}
	becomes(200)
}

// TestConfirm holds a list back that lost most of its servers, until an operator
// believes it.
func TestConfirm(t *testing.T) {
	f := newFarm(t, 9)
	p := newProxy(t, proxyConfig)
	f.list(nil, numbered(1, 9)...)
	i := newInstance(t, p.tables(`file = "`+f.file+`"`, "")).start()
	i.settled(numbered(1, 9)...)

	var refusal *control.Refusal
	if _, err := i.client.Confirm(t.Context(), control.ConfirmRequest{Backend: "servers"}); !errors.As(err, &refusal) || refusal.Status != http.StatusConflict {
		t.Errorf("confirming nothing: %v", err)
	}
	if _, err := i.client.Confirm(t.Context(), control.ConfirmRequest{Backend: "none"}); !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
		t.Errorf("confirming for no back end: %v", err)
	}
	f.list(nil, numbered(1, 2)...)
	st := i.await("a list held back", func(st *control.LB7Status) bool { return st.Records[0].HeldBack != nil })
	if h := st.Records[0].HeldBack; h.Size != 2 || h.Missing != 7 || len(st.Errors) == 0 {
		t.Errorf("held back %+v, errors %q", h, st.Errors)
	}
	if !serving(st.Backends[0], numbered(1, 9)...) {
		t.Error("servers have gone with a list that is held back")
	}
	if _, err := i.client.Confirm(t.Context(), control.ConfirmRequest{Backend: "servers"}); err != nil {
		t.Fatal(err)
	}
	i.settled(numbered(1, 2)...)
}

// TestDedicated parts one record between a dedicated back end and its fallback,
// with a hostile list: what cannot be a server is refused by name.
func TestDedicated(t *testing.T) {
	f := newFarm(t, 4)
	port := haproxytest.FreePort(t)
	h := haproxytest.Start(t, fmt.Sprintf(`
defaults base
	mode http
	timeout connect 2s
	timeout client 20s
	timeout server 20s
	default-server check inter 50ms rise 2 fall 2
frontend in
	bind 127.0.0.1:%d
	default_backend rest
backend vip from base
	server-template s 1-10 127.0.0.2:9 disabled
backend rest from base
	server-template s 1-10 127.0.0.2:9 disabled
`, port))
	i := newInstance(t, fmt.Sprintf(`
[haproxy]
socket = %q
[backend.vip]
slots = 10
slot_rest = "0s"
source = { file = %q }
groups = ["gold"]
[backend.rest]
slots_of = "vip"
fallback = true
`, h.Socket, f.file))
	entries := []group{
		{[]string{f.nodes["web-1"].addr.String()}, map[string]string{"name": "web-1", "group": "gold"}},
		{[]string{f.nodes["web-2"].addr.String()}, map[string]string{"name": "web-2"}},
		{[]string{f.nodes["web-3"].addr.String()}, map[string]string{"name": "web-3", "exclude_from_loadbalancer": "true"}},
		{[]string{"127.0.0.1:0"}, map[string]string{"name": "port-zero"}},
		{[]string{"127.0.0.1:99999"}, map[string]string{"name": "port-high"}},
		{[]string{f.nodes["web-2"].addr.String()}, map[string]string{"name": "twin"}},
		{[]string{"127.0.0.1:81"}, map[string]string{"name": "a b"}},
		{[]string{"127.0.0.1:82"}, map[string]string{"name": "a;shutdown"}},
		{[]string{"127.0.0.1:83"}, map[string]string{"name": "a\ndisable server vip/s1"}},
		{[]string{"127.0.0.1:84"}, map[string]string{"name": "long", "zone": strings.Repeat("z", 1<<20)}},
	}
	replaceJSON(t, f.file, entries)
	i.start()
	find := func(st *control.LB7Status, name string) control.Backend {
		for _, b := range st.Backends {
			if b.Name == name {
				return b
			}
		}
		return control.Backend{}
	}
	st := i.await("both back ends", func(st *control.LB7Status) bool {
		rest := find(st, "rest")
		return serving(find(st, "vip"), "web-1") && len(rest.Servers) == 2 && rest.Servers[0].State == "ready" && rest.Servers[1].State == "drain"
	})
	if n := st.Records[0].RefusedTotal; n != 7 {
		t.Errorf("%d entries refused, want 7: %q", n, st.Records[0].Refused)
	}
	for _, name := range []string{"port-zero", "port-high", "long"} {
		if !strings.Contains(strings.Join(st.Records[0].Refused, "\n"), name) {
			t.Errorf("%s is not refused by name: %q", name, st.Records[0].Refused)
		}
	}
	// One that changes its group stays behind in neither.
	entries[0].Labels["group"] = "iron"
	replaceJSON(t, f.file, entries)
	i.await("the server in the other back end", func(st *control.LB7Status) bool {
		return len(find(st, "vip").Servers) == 0 && len(find(st, "rest").Servers) == 3
	})
}
