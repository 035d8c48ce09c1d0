package lb7

import (
	"os"
	"testing"
	"time"

	"lb4d/control"
)

// TestNothingFails runs a HAProxy under load through a day of changes. Each of
// them costs no request.
func TestNothingFails(t *testing.T) {
	f := newFarm(t, 10)
	p := newProxy(t, proxyConfig)
	f.list(nil, numbered(1, 9)...)
	i := newInstance(t, p.tables(`file = "`+f.file+`"`, `slot_rest = "0s"`)).start()
	i.settled(numbered(1, 9)...)
	before := owners(t, p.url, 1000)

	step := func(name string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			i.t = t
			l := startLoad(p.url)
			defer l.end(t)
			time.Sleep(100 * time.Millisecond)
			do(t)
			time.Sleep(300 * time.Millisecond)
		})
	}
	step("remove one of nine", func(t *testing.T) {
		left := append(numbered(1, 4), numbered(6, 9)...)
		f.list(nil, left...)
		i.settled(left...)
		of5 := 0
		for k, now := range owners(t, p.url, 1000) {
			switch {
			case before[k] == "web-5":
				of5++
				if now == "web-5" {
					t.Fatalf("key %d is still at the server that is gone", k)
				}
			case now != before[k]:
				t.Fatalf("key %d went from %s to %s, and web-5 is the one that is gone", k, before[k], now)
			}
		}
		t.Logf("%d of 1000 keys moved, those of the server that is gone", of5)
		if of5 == 0 {
			t.Error("the server that is gone had no keys")
		}
	})
	step("put it back", func(t *testing.T) {
		f.list(nil, numbered(1, 9)...)
		i.settled(numbered(1, 9)...)
		for k, now := range owners(t, p.url, 1000) {
			if now != before[k] {
				t.Fatalf("key %d went from %s to %s", k, before[k], now)
			}
		}
	})
	step("add a server", func(*testing.T) {
		f.list(nil, numbered(1, 10)...)
		i.settled(numbered(1, 10)...)
	})
	step("remove one", func(t *testing.T) {
		f.list(nil, numbered(1, 9)...)
		i.settled(numbered(1, 9)...)
	})
	step("keys are where they were", func(t *testing.T) {
		for k, now := range owners(t, p.url, 1000) {
			if now != before[k] {
				t.Fatalf("key %d went from %s to %s", k, before[k], now)
			}
		}
	})
	step("replace one", func(t *testing.T) {
		f.list(nil, append(numbered(1, 4), numbered(6, 10)...)...)
		i.settled(append(numbered(1, 4), numbered(6, 10)...)...)
		moved, of5 := 0, 0
		for k, now := range owners(t, p.url, 1000) {
			if before[k] == "web-5" {
				of5++
			}
			if now != before[k] {
				moved++
			}
		}
		t.Logf("%d of 1000 keys moved; the server that was removed had %d", moved, of5)
		if moved > 2*of5 || of5 == 0 {
			t.Errorf("%d keys moved, and the server that was replaced had %d", moved, of5)
		}
	})
	step("reload HAProxy", func(t *testing.T) {
		p.Reload(t)
		i.await("the new process", func(st *control.LB7Status) bool { return st.HAProxy.Restarts == 1 })
		i.settled(append(numbered(1, 4), numbered(6, 10)...)...)
	})
	step("restart lb7d", func(t *testing.T) {
		i.stop()
		time.Sleep(200 * time.Millisecond)
		i.start()
		st := i.settled(append(numbered(1, 4), numbered(6, 10)...)...)
		if n := st.Backends[0].Sent; n != 0 {
			t.Errorf("%d commands sent where nothing differs", n)
		}
	})
	step("kill the source", func(t *testing.T) {
		if err := os.Remove(f.file); err != nil {
			t.Fatal(err)
		}
		st := i.await("the failure", func(st *control.LB7Status) bool { return st.Records[0].SourceError != "" })
		if !serving(st.Backends[0], append(numbered(1, 4), numbered(6, 10)...)...) {
			t.Errorf("servers have gone: %+v", st.Backends[0])
		}
	})
	step("restart lb7d without a source", func(t *testing.T) {
		i.stop()
		i.start()
		i.settled(append(numbered(1, 4), numbered(6, 10)...)...)
		p.Reload(t)
		i.await("the new process", func(st *control.LB7Status) bool { return st.HAProxy.Restarts == 1 })
		i.settled(append(numbered(1, 4), numbered(6, 10)...)...)
	})
	step("the source is back", func(t *testing.T) {
		f.list(nil, numbered(1, 9)...)
		i.settled(numbered(1, 9)...)
	})
}
