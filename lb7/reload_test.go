package lb7

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

// twoBackends is a HAProxy with two back ends of ten slots.
const twoBackends = `
defaults base
	mode http
	timeout connect 2s
	timeout client 20s
	timeout server 20s
	default-server check inter 50ms rise 2 fall 2
frontend in from base
	bind 127.0.0.1:PORT
	use_backend blue if { path_beg /blue }
	default_backend red
backend red from base
	server-template s 1-10 127.0.0.2:9 disabled
backend blue from base
	server-template s 1-10 127.0.0.2:9 disabled
`

// TestReload changes the configuration of a running lb7d: what is added begins,
// what is gone ends and leaves HAProxy's servers as they are, what stays is not
// disturbed, and a configuration with a fault, wherever it shows, changes
// nothing at all.
func TestReload(t *testing.T) {
	f := newFarm(t, 3)
	f.list(nil, numbered(1, 2)...)
	other := *f
	other.file = filepath.Join(t.TempDir(), "blue.json")
	other.list(nil, "web-3")
	port := haproxytest.FreePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	h := haproxytest.Start(t, strings.ReplaceAll(twoBackends, "PORT", fmt.Sprint(port)))

	listen := haproxytest.FreePort(t)
	head := fmt.Sprintf("[http]\nlisten = \"127.0.0.1:%d\"\n[haproxy]\nsocket = %q\n", listen, h.Socket)
	red := fmt.Sprintf("[backend.red]\nslots = 10\nsource = { file = %q }\n", f.file)
	blue := fmt.Sprintf("[backend.blue]\nslots = 10\nsource = { file = %q }\n", other.file)
	i := newInstance(t, head+red).start()
	i.settled(numbered(1, 2)...)
	load := startLoad(url)

	reload := func(tables string, ok func(st *control.LB7Status) bool) *control.LB7Status {
		t.Helper()
		i.write(tables)
		i.reload <- struct{}{}
		return i.await("the reload", ok)
	}
	find := func(st *control.LB7Status, name string) (control.Backend, bool) {
		for _, b := range st.Backends {
			if b.Name == name {
				return b, true
			}
		}
		return control.Backend{}, false
	}

	before := i.settled(numbered(1, 2)...)
	st := reload(head+red+blue, func(st *control.LB7Status) bool {
		b, _ := find(st, "blue")
		return st.Counters.Reloads == 1 && serving(b, "web-3")
	})
	if b, _ := find(st, "red"); b.Sent != before.Backends[0].Sent || st.Records[1].Version < before.Records[0].Version {
		t.Errorf("the back end that stayed was sent %d commands: %+v", b.Sent-before.Backends[0].Sent, st.Records)
	}
	if got := owners(t, url+"blue/", 1); got[0] != "web-3" {
		t.Errorf("the new back end is served by %s", got[0])
	}

	// Each of these would also take blue away and move the listener.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	moved := haproxytest.FreePort(t)
	newHead := strings.Replace(head, fmt.Sprint(listen), fmt.Sprint(moved), 1)
	refused := uint64(0)
	for name, tables := range map[string]string{
		"a key that is none":   newHead + red + "colour = \"red\"\n",
		"a value out of range": newHead + strings.Replace(red, "slots = 10", "slots = 0", 1),
		"what needs a restart": newHead + red + "[store]\netcd = [\"http://127.0.0.1:1\"]\n",
		"an address that is not free": newHead + red +
			fmt.Sprintf("[agent_check]\nfile = %q\nlisten = [%q]\n", filepath.Join(t.TempDir(), "agent"), taken.Addr()),
		"a listener that is not free": strings.Replace(head, fmt.Sprintf("127.0.0.1:%d", listen), taken.Addr().String(), 1) + red +
			fmt.Sprintf("[agent_check]\nfile = %q\nlisten = [\"127.0.0.1:%d\"]\n", filepath.Join(t.TempDir(), "agent"), moved),
	} {
		t.Run(name, func(t *testing.T) {
			i.t = t
			refused++
			was, _ := find(i.settledBoth(find), "blue")
			st := reload(tables, func(st *control.LB7Status) bool { return st.Counters.ReloadsFailed == refused })
			if st.Config.Error == "" || strings.Contains(st.Config.Error, "\n") || st.Counters.Reloads != 1 {
				t.Errorf("the status says %+v, %+v", st.Config, st.Counters)
			}
			st = i.settledBoth(find)
			if b, _ := find(st, "blue"); b.Sent != was.Sent {
				t.Errorf("%d commands sent by a reload that was refused", b.Sent-was.Sent)
			}
			if st.AgentCheck != nil {
				t.Error("a part has begun")
			}
			if m := scraped(t, listen); !strings.Contains(m, fmt.Sprintf("\nlb7d_config_reloads_failed_total %d\n", refused)) ||
				!strings.Contains(m, "\nlb7d_config_last_reload_successful 0\n") {
				t.Error("the metrics do not tell of the reload that was refused")
			}
			if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", moved), time.Second); err == nil {
				c.Close()
				t.Error("it listens where the refused configuration says")
			}
		})
	}
	i.t = t

	st = reload(newHead+red, func(st *control.LB7Status) bool { return st.Counters.Reloads == 2 && len(st.Backends) == 1 })
	if st.Config.Error != "" || !serving(st.Backends[0], numbered(1, 2)...) {
		t.Errorf("after the removal of a back end: %+v, %+v", st.Config, st.Backends[0])
	}
	if got := owners(t, url+"blue/", 1); got[0] != "web-3" {
		t.Errorf("HAProxy's back end that lb7d has left is served by %q", got[0])
	}
	scraped(t, moved)
	load.end(t)
	if !i.said("READY=1") || !i.said("RELOADING=1") {
		t.Errorf("the service manager heard %q", i.heard)
	}
	if _, err := os.Stat(filepath.Join(i.dir, "state", "blue.slots.json")); err != nil {
		t.Errorf("the record of the back end that is gone: %v", err)
	}
}

// settledBoth waits until both back ends are as they should be.
func (i *instance) settledBoth(find func(*control.LB7Status, string) (control.Backend, bool)) *control.LB7Status {
	i.t.Helper()
	return i.await("both back ends", func(st *control.LB7Status) bool {
		red, _ := find(st, "red")
		blue, _ := find(st, "blue")
		return serving(red, numbered(1, 2)...) && serving(blue, "web-3") && len(st.Backends) == 2
	})
}
