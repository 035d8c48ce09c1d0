package lb7

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/storetest"
)

// away is how long TestStoreAway takes the store away.
var away = flag.Duration("away", 8*time.Second, "how long TestStoreAway takes the store away")

// pair is two LB7 hosts that share a record in etcd.
type pair struct {
	t       *testing.T
	etcd    *storetest.Server
	farm    *farm
	proxies []*proxy
	hosts   []*instance
}

// newPair runs two hosts with n of the farm's servers in the list.
func newPair(t *testing.T, n int) *pair {
	t.Helper()
	p := &pair{t: t, etcd: storetest.Etcd(t), farm: newFarm(t, 9)}
	p.farm.list(nil, numbered(1, n)...)
	for range 2 {
		x := newProxy(t, proxyConfig)
		p.proxies = append(p.proxies, x)
		p.hosts = append(p.hosts, newInstance(t, fmt.Sprintf("[store]\netcd = [%q]\nlease = \"2s\"\n", p.etcd.URL)+
			x.tables(`file = "`+p.farm.file+`"`, `slot_rest = "0s"`)).start())
	}
	return p
}

// agree waits until both have just these servers, and compares the servers of
// keys.
func (p *pair) agree(names ...string) {
	p.t.Helper()
	for _, h := range p.hosts {
		h.settled(names...)
	}
	a, b := owners(p.t, p.proxies[0].url, 300), owners(p.t, p.proxies[1].url, 300)
	for k := range a {
		if a[k] != b[k] {
			p.t.Fatalf("key %d goes to %s by the one and to %s by the other", k, a[k], b[k])
		}
	}
}

// holder is which of the two asks the source.
func (p *pair) holder() int {
	p.t.Helper()
	held := func(i int) bool {
		st, err := p.hosts[i].client.LB7Status(p.t.Context())
		return err == nil && st.Records[0].Held
	}
	a, b := held(0), held(1)
	if a == b {
		p.t.Errorf("the lease: %v and %v, want one", a, b)
	}
	if b {
		return 1
	}
	return 0
}

// TestTwoHostsAgree has two HAProxys with an lb7d each share a record in etcd:
// one of them asks the source, both send every key to the same server, and the
// other takes over when the first ends.
func TestTwoHostsAgree(t *testing.T) {
	p := newPair(t, 8)
	p.agree(numbered(1, 8)...)
	first := p.holder()
	p.hosts[first].stop()
	p.hosts[1-first].await("the lease", func(st *control.LB7Status) bool { return st.Records[0].Held })
	p.farm.list(nil, numbered(2, 9)...)
	p.hosts[1-first].settled(numbered(2, 9)...)
	p.hosts[first].start()
	p.agree(numbered(2, 9)...)
}

// TestStoreAway kills the store under load. HAProxy serves on from what it has,
// also through a reload and a new lb7d, and the lists converge when the store is
// back.
func TestStoreAway(t *testing.T) {
	p := newPair(t, 8)
	p.agree(numbered(1, 8)...)
	loads := []*load{startLoad(p.proxies[0].url), startLoad(p.proxies[1].url)}
	p.etcd.Kill()
	back := time.Now().Add(*away)
	for _, h := range p.hosts {
		h.await("a word of the store", func(st *control.LB7Status) bool {
			return st.Records[0].StoreError != "" && len(st.Errors) > 0
		})
	}
	p.farm.list(nil, numbered(2, 9)...)
	p.proxies[0].Reload(t)
	p.hosts[0].await("the new process", func(st *control.LB7Status) bool { return st.HAProxy.Restarts == 1 })
	p.hosts[0].settled(numbered(1, 8)...)
	// An lb7d that starts now has the record as it was last seen.
	p.hosts[1].stop()
	p.hosts[1].start()
	p.hosts[1].settled(numbered(1, 8)...)
	p.proxies[1].Reload(t)
	p.hosts[1].await("the new process", func(st *control.LB7Status) bool { return st.HAProxy.Restarts == 1 })
	time.Sleep(time.Until(back))
	for _, h := range p.hosts {
		st := h.settled(numbered(1, 8)...)
		if st.Records[0].StoreError == "" || st.Records[0].Held {
			t.Errorf("while the store is away: %+v", st.Records[0])
		}
	}
	p.etcd.Start(t)
	start := time.Now()
	p.agree(numbered(2, 9)...)
	t.Logf("away for %v; the lists have converged %v after it was back", *away, time.Since(start).Round(10*time.Millisecond))
	for _, l := range loads {
		l.end(t)
	}
	for _, h := range p.hosts {
		if st := h.await("no fault", func(st *control.LB7Status) bool { return st.Records[0].StoreError == "" }); len(st.Errors) > 0 {
			t.Errorf("faults are left: %q", st.Errors)
		}
		if n := strings.Count(h.log.String(), "slot record may be out of date"); n < 1 || n > 3 {
			t.Errorf("the log tells %d times that the store is away", n)
		}
	}
	p.holder()
}
