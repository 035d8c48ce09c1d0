package runtime_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
)

const config = `
defaults base
	mode http
	timeout connect 1s
	timeout client 5s
	timeout server 5s
frontend in from base
	bind unix@DIR/in.sock
	http-request track-sc0 req.hdr(host) table seen
	use_backend %[req.hdr(host),map(DIR/pods.map)]
	default_backend b
backend seen from base
	stick-table type string len 64 size 100 expire 1h store http_req_cnt
backend b from base
	balance uri
	hash-type consistent
	server-template s 1-3 127.0.0.2:80 check disabled
	server-template a 1 127.0.0.2:80 agent-check agent-port 1 disabled
backend static from base
	balance uri
	server t1 127.0.0.2:80 disabled
`

// each runs the test over the stats socket, the stats socket on TCP, and the
// master socket.
func each(t *testing.T, test func(t *testing.T, h *haproxytest.HAProxy, c *runtime.Client)) {
	for _, over := range []string{"stats socket", "TCP", "master socket"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			port := haproxytest.FreePort(t)
			h := start(t, fmt.Sprintf("\tstats socket ipv4@127.0.0.1:%d level admin\n", port)+config)
			address, o := h.Socket, runtime.Options{}
			switch over {
			case "TCP":
				address = fmt.Sprintf("127.0.0.1:%d", port)
			case "master socket":
				address, o.Process = h.Master, "@1"
			}
			c, err := runtime.New(address, o)
			if err != nil {
				t.Fatal(err)
			}
			test(t, h, c)
		})
	}
}

func start(t *testing.T, config string) *haproxytest.HAProxy {
	t.Helper()
	pods := filepath.Join(t.TempDir(), "pods.map")
	if err := os.WriteFile(pods, []byte("first b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return haproxytest.Start(t, strings.ReplaceAll(config, "DIR/pods.map", pods))
}

func must(t *testing.T) func(runtime.Command, error) runtime.Command {
	return func(c runtime.Command, err error) runtime.Command {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func server(t *testing.T, c *runtime.Client, name string) runtime.Server {
	t.Helper()
	servers, err := c.ShowServersState(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no server %s in %v", name, servers)
	return runtime.Server{}
}

func TestServers(t *testing.T) {
	each(t, func(t *testing.T, h *haproxytest.HAProxy, c *runtime.Client) {
		must := must(t)
		want := runtime.Server{Backend: "b", Name: "s1", ID: 1, Addr: netip.MustParseAddrPort("127.0.0.2:80"), State: runtime.Maint, Weight: 1, InitialWeight: 1, HasCheck: true}
		if diff := cmp.Diff(want, server(t, c, "s1"), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("at first (-want +got):\n%s", diff)
		}
		for i, err := range c.Do(t.Context(),
			must(runtime.SetServerAddr("b", "s1", netip.MustParseAddrPort("[::1]:8080"))),
			must(runtime.SetServerAddr("b", "s1", netip.MustParseAddrPort("[::1]:8080"))),
			must(runtime.SetServerWeight("b", "s1", 256)),
			must(runtime.SetServerState("b", "s1", runtime.Drain)),
			must(runtime.SetServerHealth("b", "s1", false)),
			must(runtime.SetServerState("b", "s1", runtime.Ready)),
			must(runtime.EnableAgent("b", "a1", false)),
			must(runtime.EnableCheck("b", "s1", false)),
			must(runtime.EnableCheck("b", "s1", true)),
		) {
			if err != nil {
				t.Errorf("command %d: %v", i, err)
			}
		}
		want.Addr, want.State, want.Weight = netip.MustParseAddrPort("[::1]:8080"), runtime.Ready, 256
		got := server(t, c, "s1")
		got.Running, got.Checked = false, false // its check may have ended meanwhile
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("after (-want +got):\n%s", diff)
		}
		if a := server(t, c, "a1"); !a.HasAgent || a.Agent || a.HasCheck {
			t.Errorf("a1 is %+v, want its agent stopped and no check", a)
		}

		// Refusals, each with a meaning, and the session goes on after them.
		errs := c.Do(t.Context(),
			must(runtime.SetServerState("b", "s99", runtime.Ready)),
			must(runtime.SetServerWeight("static", "t1", 5)),
			must(runtime.EnableAgent("b", "s1", true)),
			must(runtime.SetServerWeight("b", "s2", 7)),
		)
		if !errors.Is(errs[0], runtime.ErrNotFound) || !errors.Is(errs[1], runtime.ErrStaticWeight) || errs[2] == nil || errs[3] != nil {
			t.Errorf("refusals: %v", errs)
		}
		if w := server(t, c, "s2").Weight; w != 7 {
			t.Errorf("weight of s2 is %d, want 7", w)
		}

		// Add and delete: their replies end otherwise than the others do.
		if errs := c.Do(t.Context(),
			must(runtime.AddServer("b", "new", netip.MustParseAddrPort("[::1]:81"), "check", "id", "9")),
			must(runtime.AddServer("static", "new", netip.MustParseAddrPort("[::1]:81"))),
			must(runtime.DelServer("b", "new")),
			must(runtime.DelServer("b", "new")),
		); errs[0] != nil || errs[1] == nil || errs[2] != nil || !errors.Is(errs[3], runtime.ErrNotFound) {
			t.Errorf("adding and deleting: %v", errs)
		}
	})
}

func TestListings(t *testing.T) {
	each(t, func(t *testing.T, h *haproxytest.HAProxy, c *runtime.Client) {
		before, err := c.ShowInfo(t.Context())
		if err != nil || before.PID == 0 || !strings.HasPrefix(before.Version, "2.") || fmt.Sprint(before.PID) != h.PID() {
			t.Errorf("ShowInfo: %+v, %v", before, err)
		}
		names, err := c.ShowBackends(t.Context())
		if diff := cmp.Diff([]string{"seen", "b", "static"}, names); diff != "" || err != nil {
			t.Errorf("ShowBackends (-want +got):\n%s%v", diff, err)
		}
		stats, err := c.ShowStat(t.Context(), "b")
		if err != nil || len(stats) != 5 || stats[0].Server != "s1" || stats[0].Status != "MAINT" || stats[4].Server != "" {
			t.Errorf("ShowStat: %+v, %v", stats, err)
		}
		if _, err := c.ShowStat(t.Context(), "none"); err == nil {
			t.Error("ShowStat of a back end that does not exist: no error")
		}
		if _, err := c.ShowServersState(t.Context(), "none"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("ShowServersState of a back end that does not exist: %v", err)
		}
		h.Reload(t)
		after, err := c.ShowInfo(t.Context())
		if err != nil || after.PID == before.PID {
			t.Errorf("after a reload: %+v, %v", after, err)
		}
	})
}

func TestMaps(t *testing.T) {
	each(t, func(t *testing.T, h *haproxytest.HAProxy, c *runtime.Client) {
		ctx, must := t.Context(), must(t)
		all, err := c.ShowMaps(ctx)
		if err != nil || len(all) != 1 || all[0].Entries != 1 {
			t.Fatalf("ShowMaps: %+v, %v", all, err)
		}
		file := all[0].File
		check := func(what string, want map[string]string) {
			t.Helper()
			got := map[string]string{}
			err := c.ShowMap(ctx, file, func(k, v string) error { got[k] = v; return nil })
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s (-want +got):\n%s%v", what, diff, err)
			}
		}
		check("at first", map[string]string{"first": "b"})

		errs := c.Do(ctx,
			must(runtime.AddMap(file, "www.example.org", "pod1")),
			must(runtime.SetMap(file, "www.example.org", "pod2")),
			must(runtime.SetMap(file, "nobody", "pod2")),
			must(runtime.DelMap(file, "first")),
			must(runtime.DelMap(file, "first")),
		)
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], runtime.ErrNotFound) || errs[3] != nil || !errors.Is(errs[4], runtime.ErrNotFound) {
			t.Errorf("changes: %v", errs)
		}
		check("after changes", map[string]string{"www.example.org": "pod2"})

		many := map[string]string{}
		for i := range 5000 {
			many[fmt.Sprintf("host%d.example.org", i)] = fmt.Sprintf("pod%d", i%7)
		}
		if err := c.ReplaceMap(ctx, file, maps.All(many)); err != nil {
			t.Fatal(err)
		}
		check("replaced", many)

		// One bad entry among many: refused, and the map stays as it was.
		bad := maps.Clone(many)
		bad["evil.example.org"] = "pod1\nshow env"
		if err := c.ReplaceMap(ctx, file, maps.All(bad)); !errors.Is(err, runtime.ErrWord) {
			t.Errorf("a newline in a value: %v", err)
		}
		check("after a refusal", many)
		if err := c.FillMap(ctx, file, 99, maps.All(many)); err == nil {
			t.Error("filling a version that was never prepared: no error")
		}
		if _, err := c.PrepareMap(ctx, "/no/such.map"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("preparing a map that does not exist: %v", err)
		}
		if err := c.ClearMap(ctx, file); err != nil {
			t.Error(err)
		}
		check("cleared", map[string]string{})
	})
}

// The keys of a stick table, and how long ago they were used.
func TestShowTable(t *testing.T) {
	each(t, func(t *testing.T, h *haproxytest.HAProxy, c *runtime.Client) {
		conn, err := net.Dial("unix", filepath.Join(h.Dir, "in.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(conn); err != nil {
			t.Fatal(err)
		}
		got := map[string]time.Duration{}
		if err := c.ShowTable(t.Context(), "seen", func(k string, left time.Duration) error { got[k] = left; return nil }); err != nil {
			t.Fatal(err)
		}
		if left := got["www.example.org"]; len(got) != 1 || left <= 30*time.Minute || left > time.Hour {
			t.Errorf("the table holds %v, want www.example.org for almost 1h", got)
		}
		if err := c.ShowTable(t.Context(), "none", nil); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("a table that does not exist: %v", err)
		}
	})
}

// A master whose process does not exist says so instead of hanging.
func TestNoSuchProcess(t *testing.T) {
	h := start(t, config)
	c, err := runtime.New(h.Master, runtime.Options{Process: "@9", Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	cmd := must(t)(runtime.SetServerState("b", "s1", runtime.Ready))
	if err := c.Do(t.Context(), cmd)[0]; err == nil || !strings.Contains(err.Error(), "Can't find the target") {
		t.Errorf("Do: %v", err)
	}
	if _, err := c.ShowServersState(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "Can't find the target") {
		t.Errorf("ShowServersState: %v", err)
	}
}

func BenchmarkDo(b *testing.B) {
	h := haproxytest.Start(b, strings.ReplaceAll(config, "\tuse_backend %[req.hdr(host),map(DIR/pods.map)]\n", ""))
	for _, over := range []string{"stats", "master"} {
		b.Run(over, func(b *testing.B) {
			address, o := h.Socket, runtime.Options{}
			if over == "master" {
				address, o.Process = h.Master, "@1"
			}
			c, err := runtime.New(address, o)
			if err != nil {
				b.Fatal(err)
			}
			commands := make([]runtime.Command, b.N)
			for i := range commands {
				commands[i], _ = runtime.SetServerWeight("b", "s1", i%256)
			}
			b.ResetTimer()
			if err := errors.Join(c.Do(b.Context(), commands...)...); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestShowFrontends counts the sessions that go on at a front end.
func TestShowFrontends(t *testing.T) {
	port := haproxytest.FreePort(t)
	h := haproxytest.Start(t, fmt.Sprintf(`
defaults
	mode tcp
	timeout connect 1s
	timeout client 10s
	timeout server 10s
frontend in
	bind 127.0.0.1:%d
	tcp-request inspect-delay 9s
	tcp-request content accept if { req.len gt 1000 }
	default_backend none
backend none
`, port))
	c, err := runtime.New(h.Socket, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sessions := func() int {
		t.Helper()
		fronts, err := c.ShowFrontends(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(fronts) != 1 || fronts[0].Backend != "in" || fronts[0].Server != "FRONTEND" {
			t.Fatalf("front ends %+v, want in alone", fronts)
		}
		return fronts[0].Sessions
	}
	if n := sessions(); n != 0 {
		t.Errorf("%d sessions before any", n)
	}
	for want := 1; want <= 3; want++ {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for deadline := time.Now().Add(5 * time.Second); sessions() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d sessions, want %d", sessions(), want)
			}
		}
	}
}
