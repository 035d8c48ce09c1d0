package l7

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

var nine = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}

var tenSlots = slots.Policy{Slots: 10, Rest: 0, MaxShrink: 50, Persist: time.Minute, Weight: 10}

// Ten slots, nine servers, load on them: whatever happens to the list and to
// HAProxy, no request fails.
func TestNothingFails(t *testing.T) {
	for over, address := range map[string]func(*haproxytest.HAProxy) (string, runtime.Options){
		"stats socket": func(h *haproxytest.HAProxy) (string, runtime.Options) { return h.Socket, runtime.Options{} },
		"master socket": func(h *haproxytest.HAProxy) (string, runtime.Options) {
			return h.Master, runtime.Options{Process: "@1"}
		},
	} {
		t.Run(over, func(t *testing.T) {
			f := newFarm(t, nine...)
			p := newProxy(t, address)
			k := &keeper{policy: tenSlots, proxies: []*proxy{p}}
			k.settle(t, f.list(nine...))

			underLoad := func(name string, do func(t *testing.T)) {
				t.Run(name, func(t *testing.T) {
					l := startLoad(p.url)
					time.Sleep(100 * time.Millisecond)
					do(t)
					time.Sleep(200 * time.Millisecond)
					l.end(t)
				})
			}
			underLoad("a server is added that is not ready yet", func(t *testing.T) {
				n := f.start("j", false)
				list := f.list(append(nine, "j")...)
				for range 20 {
					k.pass(t, list)
					time.Sleep(10 * time.Millisecond)
				}
				n.healthy.Store(true)
				k.settle(t, list)
				if n.early.Load() > 0 {
					t.Errorf("%d requests came before its check had passed", n.early.Load())
				}
			})
			underLoad("a server is removed", func(t *testing.T) {
				k.settle(t, f.list("a", "b", "d", "e", "f", "g", "h", "i", "j"))
			})
			underLoad("and another takes its place", func(t *testing.T) {
				f.start("k", true)
				k.settle(t, f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "k"))
				if got := who(k.record); got != "a b k d e f g h i j" {
					t.Errorf("the slots are %s", got)
				}
			})
			underLoad("a server is replaced at one stroke", func(t *testing.T) {
				f.start("l", true)
				k.settle(t, f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "l"))
				if got := who(k.record); got != "a b l d e f g h i j" {
					t.Errorf("the slots are %s", got)
				}
			})
			list := f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "l")
			underLoad("a server is excluded, and is not any more", func(t *testing.T) {
				out := slices.Clone(list)
				out[0].Exclude = true
				k.pass(t, out)
				if s := p.state(t)[1]; s.State != runtime.Drain {
					t.Errorf("it is %+v", s)
				}
				time.Sleep(50 * time.Millisecond)
				k.settle(t, list)
			})
			underLoad("HAProxy reloads", func(t *testing.T) {
				for range 3 {
					p.Reload(t)
					r := k.pass(t, list)[0]
					if !r.Restarted || r.Sent != 0 {
						t.Errorf("noticed %v, and %d commands, of which %v; the include file had it all", r.Restarted, r.Sent, r.Steps)
					}
				}
			})
			underLoad("HAProxy reloads while a server comes that is not ready", func(t *testing.T) {
				n := f.start("m", false)
				list := f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "m")
				k.pass(t, list)
				p.Reload(t)
				for range 20 {
					k.pass(t, list)
					time.Sleep(10 * time.Millisecond)
				}
				n.healthy.Store(true)
				k.settle(t, list)
				if n.early.Load() > 0 {
					t.Errorf("%d requests came before its check had passed", n.early.Load())
				}
			})
			underLoad("lb7d starts again and finds all as it should be", func(t *testing.T) {
				a, o := address(p.HAProxy)
				p.restartDaemon(t, a, o)
				if r := k.pass(t, f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "m"))[0]; r.Sent != 0 || r.Restarted {
					t.Errorf("%+v", r.Steps)
				}
			})
			underLoad("somebody disturbs it", func(t *testing.T) {
				c, err := runtime.New(p.Socket, runtime.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, cmd := range []func() (runtime.Command, error){
					func() (runtime.Command, error) { return runtime.SetServerState("servers", "s1", runtime.Maint) },
					func() (runtime.Command, error) { return runtime.SetServerWeight("servers", "s2", 0) },
					func() (runtime.Command, error) { return runtime.SetServerState("servers", "s4", runtime.Drain) },
				} {
					cmd, err := cmd()
					if err == nil {
						err = c.Do(t.Context(), cmd)[0]
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				list := f.list("a", "b", "d", "e", "f", "g", "h", "i", "j", "m")
				if r := k.pass(t, list)[0]; r.Repaired != 3 {
					t.Errorf("%d repaired, want 3: %+v", r.Repaired, r.Steps)
				}
				k.settle(t, list)
			})
		})
	}
}

// state is what HAProxy lists.
func (p *proxy) state(t *testing.T) map[int]runtime.Server {
	t.Helper()
	servers, err := p.applier.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return servers
}

// who names the servers in the order of the slots.
func who(r slots.Record) string {
	var names []string
	for _, s := range r.Slots {
		if s.State != slots.Free {
			names = append(names, s.ID)
		}
	}
	return strings.Join(names, " ")
}

// Two HAProxys agree on every key, also where one has seen another history;
// the removal of one server of nine moves that server's keys and no others.
func TestKeys(t *testing.T) {
	f := newFarm(t, nine...)
	f.start("x", true)
	p, q := newProxy(t, nil), newProxy(t, nil)
	k := &keeper{policy: tenSlots, proxies: []*proxy{p}}
	// One of them comes late, and meanwhile the list has had another server
	// and lacked one.
	k.settle(t, f.list(append([]string{"x"}, nine[1:]...)...))
	k.settle(t, f.list(append([]string{"x"}, nine...)...))
	k.settle(t, f.list(nine...))
	k.proxies = append(k.proxies, q)
	k.settle(t, f.list(nine...))

	const keys = 2000
	before := owners(t, p.url, keys)
	if other := owners(t, q.url, keys); !slices.Equal(before, other) {
		t.Error("the two do not agree on every key")
	}
	// The same after a reload, when HAProxy builds its table from the file.
	q.Reload(t)
	k.pass(t, f.list(nine...))
	if other := owners(t, q.url, keys); !slices.Equal(before, other) {
		t.Error("after a reload the two do not agree on every key")
	}

	k.settle(t, f.list(slices.DeleteFunc(slices.Clone(nine), func(n string) bool { return n == "e" })...))
	after := owners(t, p.url, keys)
	moved, others := 0, 0
	for i := range before {
		if before[i] != after[i] {
			moved++
			if before[i] != "e" {
				others++
			}
		}
	}
	t.Logf("of %d keys %d moved (%.1f %%), of which %d were another server's", keys, moved, 100*float64(moved)/keys, others)
	if others > 0 || moved == 0 {
		t.Errorf("%d keys of other servers moved", others)
	}
	if other := owners(t, q.url, keys); !slices.Equal(after, other) {
		t.Error("after the removal the two do not agree on every key")
	}
}

// Without the include file a reload loses every server. The next Apply brings
// them back, and those that had passed before serve at once.
func TestReloadOfATemplate(t *testing.T) {
	f := newFarm(t, nine...)
	port := haproxytest.FreePort(t)
	h := haproxytest.Start(t, strings.ReplaceAll(base, "PORT", fmt.Sprint(port))+`
backend servers from base
	server-template s 1-10 127.0.0.2:9 check disabled
`)
	p := &proxy{HAProxy: h, url: fmt.Sprintf("http://127.0.0.1:%d/", port), include: Include{Path: h.Dir + "/unused"}}
	p.restartDaemon(t, h.Socket, runtime.Options{})
	k := &keeper{policy: tenSlots, proxies: []*proxy{p}}
	k.settle(t, f.list(nine...))
	before := owners(t, p.url, 200)

	h.Reload(t)
	r := k.pass(t, f.list(nine...))[0]
	if !r.Restarted || r.Repaired != 0 {
		t.Errorf("noticed: %v, repaired: %d", r.Restarted, r.Repaired)
	}
	if after := owners(t, p.url, 200); !slices.Equal(before, after) {
		t.Error("the keys are elsewhere")
	}
}

// A list of 1,000 servers, and then changes of one.
func TestThousand(t *testing.T) {
	for _, over := range []string{"stats socket", "master socket"} {
		t.Run(over, func(t *testing.T) {
			h := haproxytest.Start(t, `
defaults
	mode http
	timeout connect 1s
	timeout client 1s
	timeout server 1s
backend servers
	balance uri
	hash-type consistent
	server-template s 1-1000 127.0.0.2:80 check inter 60s disabled
`)
			address, o, within := h.Socket, runtime.Options{}, 5*time.Second
			if over == "master socket" {
				// The master opens a connection to the worker for each command:
				// 0.6 s for 5,000 on a quiet machine.
				address, o.Process, within = h.Master, "@1", 15*time.Second
			}
			c, err := runtime.New(address, o)
			if err != nil {
				t.Fatal(err)
			}
			a := NewApplier(c, "servers", "s")
			policy := slots.Policy{Slots: 1000, MaxShrink: 50, Weight: 10}
			var list []slots.Server
			for i := range 1000 {
				list = append(list, slots.Server{ID: fmt.Sprintf("i-%04d", i), Addr: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), Port: 1, Weight: slots.NoWeight})
			}
			var record slots.Record
			apply := func(what string, sent int) {
				t.Helper()
				start := time.Now()
				record, _ = slots.Assign(record, list, time.Now(), policy)
				r, err := a.Apply(t.Context(), record.Slots)
				took := time.Since(start)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %d commands in %v", what, r.Sent, took.Round(100*time.Microsecond))
				if r.Sent != sent || r.Failed > 0 || len(r.Problems) > 0 {
					t.Errorf("%s: %d commands, want %d; %d failed; %v", what, r.Sent, sent, r.Failed, r.Problems)
				}
				if took > within {
					t.Errorf("%s: %v, want at most %v", what, took, within)
				}
			}
			apply("1,000 servers", 5000)
			apply("nothing", 0)
			list[500].Weight = 3
			apply("another weight", 1)
			list[500].Exclude = true
			apply("one excluded", 1)
			gone := list[77]
			list = slices.Delete(list, 77, 78)
			apply("one gone", 1)
			gone.ID, gone.Addr = "new", netip.MustParseAddr("127.2.0.1")
			list = append(list, gone)
			apply("one come", 4)

			// HAProxy starts again without the include file: all is back.
			h.Reload(t)
			apply("after a reload", 4999)
		})
	}
}
