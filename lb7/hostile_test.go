package lb7

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lb4d/control"
)

// tap is a socket in front of HAProxy's, which keeps all that HAProxy is sent.
func tap(t *testing.T, socket string) (path string, sent *safeBuffer) {
	t.Helper()
	path, sent = filepath.Join(filepath.Dir(socket), "tap.sock"), &safeBuffer{}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer out.Close()
				go func() {
					_, _ = io.Copy(out, io.TeeReader(in, sent))
					_ = out.(*net.UnixConn).CloseWrite()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return path, sent
}

// TestHostile puts into a list what cannot be a server, or would be a command of
// its own if it reached HAProxy. Each is refused by name, the rest is applied,
// and nothing of the others is ever sent.
func TestHostile(t *testing.T) {
	f := newFarm(t, 3)
	p := newProxy(t, proxyConfig)
	addr := func(name string) string { return f.nodes[name].addr.String() }
	named := func(target, name string) group { return group{[]string{target}, map[string]string{"name": name}} }
	labelled := func(n int, name, label, value string) group {
		return group{[]string{fmt.Sprintf("10.66.6.%d:80", n)}, map[string]string{"name": name, label: value}}
	}
	megabyte := strings.Repeat("x", 1<<20)
	good := []group{
		named(addr("web-1"), "web-1"), named(addr("web-2"), "web-2"), named(addr("web-3"), "web-3"),
		// An IPv6 address is an address.
		named("[2001:db8::7]:8080", "six"),
		// What is not known means nothing, however long it is.
		{[]string{"10.77.7.7:80"}, map[string]string{"name": "seven", "comment": megabyte, "__meta_x": "a;b\nc"}},
	}
	hostile := []struct {
		entry group
		shown string // in the status
	}{
		{named("10.66.6.1:80", "a b"), `"a b"`},
		{named("10.66.6.2:80", "a;shutdown sessions server servers/s1"), `"a;shutdown sessions server servers/s1"`},
		{named("10.66.6.3:80", "a\ndisable server servers/s1"), `"a\ndisable server servers/s1"`},
		{named("10.66.6.4:80", "a\r\n<<\n"), `"a\r\n<<\n"`},
		{named("10.66.6.5:80", "a\x00b"), `"a\x00b"`},
		{named("10.66.6.6:80", "sérveur"), `"s\u00e9rveur"`},
		{named("10.66.6.7:80", megabyte), "xxxx"},
		{labelled(8, "long-zone", "zone", megabyte), "long-zone"},
		{labelled(9, "odd-group", "group", "g;\nset server servers/s1 state maint"), "odd-group"},
		{labelled(10, "odd-weight", "weight", "1\ndisable server servers/s1"), "odd-weight"},
		{labelled(11, "high-weight", "weight", "257"), "high-weight"},
		{labelled(12, "odd-exclude", "exclude_from_loadbalancer", "maybe"), "odd-exclude"},
		{named("10.66.6.13:0", "port-zero"), "port-zero"},
		{named("10.66.6.14:99999", "port-high"), "port-high"},
		{named("10.66.6.15:-1", "port-low"), "port-low"},
		{named("10.66.6.16:80;x", "port-odd"), "port-odd"},
		{named("10.66.6.17", "port-none"), "port-none"},
		{named("[fe80::666%eth0]:80", "zoned"), "zoned"},
		{named("[ff02::666]:80", "many-hosts"), "many-hosts"},
		{named("[::]:666", "no-host"), "no-host"},
		{named("2001:db8::666:80", "no-brackets"), "no-brackets"},
		{named("bad.example:80", "a-name"), "a-name"},
		{named("10.66.6.18:80\ndisable server servers/s1", "odd-target"), "odd-target"},
		{named(addr("web-1"), "zz-twin"), "zz-twin"}, // the address of another
		{named("10.66.6.19:80", ""), ""},             // no name: the address serves
		{named(addr("web-1"), "web-1"), "web-1"},     // the same twice
		{named("255.66.6.20:80", "web-2"), "web-2"},  // the name of another
	}
	const unnamed = "10.66.6.19:80"
	list := append([]group(nil), good...)
	refused := 0
	for _, h := range hostile {
		list = append(list, h.entry)
		if h.shown != "" {
			refused++
		}
	}
	replaceJSON(t, f.file, list)

	socket, sent := tap(t, p.Socket)
	tables := strings.Replace(p.tables(`file = "`+f.file+`"`, ""), p.Socket, socket, 1)
	i := newInstance(t, tables).start()
	st := i.await("the good ones", func(st *control.LB7Status) bool {
		passed := 0
		for _, b := range st.Backends {
			for _, s := range b.Servers {
				if strings.HasPrefix(s.ID, "web-") && !s.PassedAt.IsZero() {
					passed++
				}
			}
		}
		return passed == 3 && len(st.Backends[0].Servers) == len(good)+1
	})
	r := st.Records[0]
	if r.RefusedTotal != refused {
		t.Errorf("%d refused, want %d", r.RefusedTotal, refused)
	}
	for _, h := range hostile {
		if h.shown == "" {
			continue
		}
		found := false
		for _, line := range r.Refused {
			if strings.HasPrefix(line, h.shown) {
				found = true
			}
			if len(line) > 1000 || strings.ContainsAny(line, "\n\r\x00") {
				t.Errorf("a refusal of %d bytes is told as %.100q", len(line), line)
			}
		}
		if !found {
			t.Errorf("%.60q is not refused by name", h.entry.Labels["name"])
		}
	}
	ids := map[string]bool{}
	for _, s := range st.Backends[0].Servers {
		ids[s.ID] = true
	}
	for _, id := range []string{"web-1", "web-2", "web-3", "six", "seven", unnamed} {
		if !ids[id] {
			t.Errorf("%s is not among the servers", id)
		}
	}

	// Every line that HAProxy was sent is one of these, and none has anything
	// of what was refused.
	known := regexp.MustCompile(`^(prompt|set severity-output number|show (info|stat|servers state)\b[a-z0-9 -]*|` +
		`set server servers/s\d+ (addr [0-9a-f.:]+ port \d+|state (ready|drain|maint)|health (up|down)|weight \d+)|` +
		`(enable|disable) (health|agent) servers/s\d+|quit)$`)
	commands := 0
	for line := range strings.Lines(sent.String()) {
		for command := range strings.SplitSeq(strings.TrimRight(line, "\r\n"), ";") {
			if !known.MatchString(strings.TrimSpace(command)) {
				t.Errorf("HAProxy was sent %.200q", command)
			}
			if strings.HasPrefix(command, "set server") {
				commands++
			}
		}
	}
	if commands < len(good) {
		t.Errorf("%d commands were seen, which cannot be all", commands)
	}
	for _, word := range []string{"10.66.6.1 ", "10.66.6.2 ", "99999", "::666", "port 666", "xxxx", "shutdown", "<<"} {
		if strings.Contains(strings.ReplaceAll(sent.String(), "\n", " "), word) {
			t.Errorf("HAProxy was sent %q", word)
		}
	}
	for k, owner := range owners(t, p.url, 100) {
		if !strings.HasPrefix(owner, "web-") {
			t.Errorf("key %d goes to %s", k, owner)
		}
	}
}
