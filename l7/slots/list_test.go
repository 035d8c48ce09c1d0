package slots

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each of these stands beside two good servers, and is refused by name while
// those get their slots.
func TestHostileLists(t *testing.T) {
	ip := netip.MustParseAddr
	good := func(id, addr string) Server {
		return Server{ID: id, Addr: ip(addr), Port: 80, Weight: NoWeight}
	}
	with := func(change func(*Server)) []Server {
		s := good("bad", "192.0.2.66")
		change(&s)
		return []Server{s}
	}
	big := strings.Repeat("A", 1<<20)
	for _, tt := range []struct {
		name string
		bad  []Server
		want string
	}{
		{"a space in the id", with(func(s *Server) { s.ID = "bad one" }), `bad one: id "bad one" has ' '`},
		{"a semicolon", with(func(s *Server) { s.ID = "bad;shutdown" }), `bad;shutdown: id "bad;shutdown" has ';'`},
		{"a newline", with(func(s *Server) { s.ID = "bad\nserver x" }), `bad\nserver x: id "bad\nserver x" has '\n'`},
		{"a comment", with(func(s *Server) { s.Name = "bad#" }), `bad: name "bad#" has '#'`},
		{"no id", with(func(s *Server) { s.ID = "" }), `192.0.2.66: no id`},
		{"a group of 1 MB", with(func(s *Server) { s.Group = big }), `bad: group "` + big[:64] + `"... has 1048576 bytes, more than 255`},
		{"an id of 1 MB", with(func(s *Server) { s.ID = big }), big[:64] + `: id "` + big[:64] + `"... has 1048576 bytes, more than 255`},
		{"UTF-8 in the zone", with(func(s *Server) { s.Zone = "zône" }), `bad: zone "zône" has 'Ã'`},
		{"port 0", with(func(s *Server) { s.Port = 0 }), `bad: port 0 is not in 1 to 65535`},
		{"port 99999", with(func(s *Server) { s.Port = 99999 }), `bad: port 99999 is not in 1 to 65535`},
		{"port -1", with(func(s *Server) { s.Port = -1 }), `bad: port -1 is not in 1 to 65535`},
		{"no address", with(func(s *Server) { s.Addr = netip.Addr{} }), `bad: no address`},
		{"the unspecified address", with(func(s *Server) { s.Addr = ip("::") }), `bad: address :: is not that of one host`},
		{"a multicast address", with(func(s *Server) { s.Addr = ip("ff02::1") }), `bad: address ff02::1 is not that of one host`},
		{"a zone in the address", with(func(s *Server) { s.Addr = ip("fe80::1%eth0") }), `bad: address fe80::1%eth0 has a zone, which HAProxy does not know`},
		{"weight 257", with(func(s *Server) { s.Weight = 257 }), `bad: weight 257 is not in 0 to 256`},
		{"weight -2", with(func(s *Server) { s.Weight = -2 }), `bad: weight -2 is not in 0 to 256`},
		{"an id that is there already", []Server{good("a", "192.0.2.99")}, `a: the id is that of another server too, at 192.0.2.1:80`},
		{"an address that is there already", []Server{good("c", "2001:db8::2")}, `c: address [2001:db8::2]:80 is that of server "b" too`},
		{"the same address in another form", []Server{good("c", "::ffff:192.0.2.1")}, `c: address 192.0.2.1:80 is that of server "a" too`},
		{"the same server twice", []Server{good("a", "192.0.2.1")}, ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := append([]Server{good("a", "192.0.2.1"), good("b", "2001:db8::2")}, tt.bad...)
			r, c := Assign(Record{}, list, epoch, Policy{Slots: 9, Weight: 1})
			if got := show(r, Changes{}, epoch); got != "1=a@80 2=b@80" {
				t.Errorf("slots: %s", got)
			}
			var refused []string
			for _, r := range c.Refused {
				refused = append(refused, r.String())
			}
			if diff := cmp.Diff(tt.want, strings.Join(refused, "; ")); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

// A record from a store is as hostile as a list.
func TestCheck(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:80")
	full := func(n int) Slot {
		return Slot{Number: n, State: Ready, ID: fmt.Sprint("i", n), Addr: netip.AddrPortFrom(at.Addr(), uint16(n)), Weight: 1, Full: 1}
	}
	for _, tt := range []struct {
		name   string
		change func(r *Record)
		want   string
	}{
		{"as it should be", func(*Record) {}, ``},
		{"another number", func(r *Record) { r.Slots[1].Number = 7 }, `checking the slot record: slot 2: it has number 7`},
		{"one id twice", func(r *Record) { r.Slots[1].ID = "i1" }, `checking the slot record: slot 2: server "i1" has slot 1 too`},
		{"one address twice", func(r *Record) { r.Slots[1].Addr = r.Slots[0].Addr }, `checking the slot record: slot 2: address 192.0.2.1:1 has slot 1 too`},
		{"a newline", func(r *Record) { r.Slots[0].Name = "x\n" }, `checking the slot record: slot 1: name "x\n" has '\n'`},
		{"no address", func(r *Record) { r.Slots[0].Addr = netip.AddrPort{} }, `checking the slot record: slot 1: no address`},
		{"IPv4 in IPv6", func(r *Record) {
			r.Slots[0].Addr = netip.MustParseAddrPort("[::ffff:192.0.2.1]:80")
		}, `checking the slot record: slot 1: address [::ffff:192.0.2.1]:80 stands for 192.0.2.1:80`},
		{"no such state", func(r *Record) { r.Slots[0].State = "x" }, `checking the slot record: slot 1: state "x" is none of free, ready, drain`},
		{"a great weight", func(r *Record) { r.Slots[0].Weight = 999 }, `checking the slot record: slot 1: weight 999 of 1 is not in 0 to 256`},
		{"free, with a server", func(r *Record) { r.Slots[0].State = Free }, `checking the slot record: slot 1: it is free and has server "i1" at 192.0.2.1:1`},
		{"too many", func(r *Record) { r.Slots = make([]Slot, MaxSlots+1) }, `checking the slot record: 4097 slots, more than 4096`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Record{Slots: []Slot{full(1), full(2), {Number: 3, State: Free}}}
			tt.change(&r)
			got := ""
			if err := r.Check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The order of a list says nothing, whatever is wrong with it.
func TestOrderDoesNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var list []Server
		for range rng.IntN(12) {
			s := Server{ID: fmt.Sprint("i", rng.IntN(6)), Addr: netip.MustParseAddr("192.0.2.1"), Port: rng.IntN(6), Weight: rng.IntN(3)}
			list = append(list, s)
		}
		p := Policy{Slots: 4, Weight: 1, MaxShrink: 100}
		start, _ := Assign(Record{}, list[:len(list)/2], epoch, p)
		first, _ := Assign(start, list, epoch, p)
		for range 5 {
			rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			if r, _ := Assign(start, list, epoch, p); show(r, Changes{}, epoch) != show(first, Changes{}, epoch) {
				t.Fatalf("%v\ngives %s\nand then %s", list, show(first, Changes{}, epoch), show(r, Changes{}, epoch))
			}
		}
	}
}

func TestViews(t *testing.T) {
	r, _ := Assign(Record{}, servers("a/g1 b/g2 c/g1 d e/g3"), epoch, Policy{Slots: 6, Weight: 1})
	for _, tt := range []struct {
		name   string
		filter Filter
		want   string
	}{
		{"every server", Filter{}, "1=a 2=b 3=c 4=d 5=e"},
		{"one group", Filter{Groups: []string{"g1"}}, "1=a 3=c"},
		{"its fallback", Filter{Groups: []string{"g1"}, Rest: true}, "2=b 4=d 5=e"},
		{"two groups", Filter{Groups: []string{"g1", "g3"}}, "1=a 3=c 5=e"},
		{"a group that has none", Filter{Groups: []string{"g9"}}, ""},
		{"a group in no zone", Filter{Groups: []string{"g1"}, Zones: []string{"z"}}, ""},
		{"the rest of nothing", Filter{Rest: true}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			view := r.View(tt.filter)
			if len(view) != len(r.Slots) {
				t.Errorf("%d slots of %d", len(view), len(r.Slots))
			}
			if got := show(Record{Slots: view}, Changes{}, epoch); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	// A server that goes, or changes its group, leaves both back ends.
	r, _ = Assign(r, servers("a/g1 b/g1 d e/g3"), epoch, Policy{Slots: 6, Weight: 1})
	for f, want := range map[*Filter]string{
		{Groups: []string{"g1"}}:             "1=a 2=b",
		{Groups: []string{"g1"}, Rest: true}: "4=d 5=e",
	} {
		if got := show(Record{Slots: r.View(*f)}, Changes{}, epoch); got != want {
			t.Errorf("%+v: got %s, want %s", *f, got, want)
		}
	}
}
