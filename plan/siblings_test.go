package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/l4"
)

// path is what a peer tells of another host; 0 is no fingerprint.
func path(peer, vip, router, hop string, fingerprint uint32, draining bool) bgp.Sibling {
	s := bgp.Sibling{VIP: addr(vip), Peer: addr(peer), NextHop: addr(hop), Draining: draining, Since: now}
	if router != "" {
		s.RouterID = addr(router)
	}
	if fingerprint != 0 {
		s.Fingerprint = &fingerprint
	}
	return s
}

// tells is a peer that has told all it knows.
func tells(all, best bgp.Families) bgp.PeerStatus {
	return bgp.PeerStatus{Received: bgp.Received{Tells: all | best, All: all}}
}

// otherHosts are siblings in words.
func otherHosts(o Others) string {
	var b strings.Builder
	for _, s := range o.Siblings {
		fmt.Fprintf(&b, "%s via %s by %d peers", s.RouterID, s.NextHop, len(s.Peers))
		if s.Fingerprint != nil {
			fmt.Fprintf(&b, " %x", *s.Fingerprint)
		}
		if s.Draining {
			b.WriteString(" draining")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "heard %v sure %v announcing %d\n", o.Heard, o.Sure, o.Announcing())
	return b.String()
}

// TestOthersOf: what several peers say of one host is one sibling, and what is
// not said is known to be so or not.
func TestOthersOf(t *testing.T) {
	const vip, vip6, rr1, rr2 = "198.51.100.1", "2001:db8:1::1", "192.0.2.254", "192.0.2.253"
	for _, tt := range []struct {
		name  string
		of    string
		paths []bgp.Sibling
		peers []bgp.PeerStatus
		want  string
	}{
		{name: "no session", want: "heard false sure false announcing 0\n"},
		{name: "nobody else", peers: []bgp.PeerStatus{tells(bgp.IPv4, 0)}, want: "heard true sure true announcing 0\n"},
		{name: "nobody else, as far as the best path tells", peers: []bgp.PeerStatus{tells(0, bgp.IPv4)}, want: "heard true sure false announcing 0\n"},
		{name: "one peer that tells all is enough", peers: []bgp.PeerStatus{tells(0, bgp.IPv4), tells(bgp.IPv4, 0)}, want: "heard true sure true announcing 0\n"},
		{name: "a session of the other family", of: vip6, peers: []bgp.PeerStatus{tells(bgp.IPv4, 0)}, want: "heard false sure false announcing 0\n"},
		{
			name: "one host by two reflectors", peers: []bgp.PeerStatus{tells(bgp.IPv4, 0)},
			paths: []bgp.Sibling{path(rr1, vip, "192.0.2.133", "192.0.2.133", 0, true), path(rr2, vip, "192.0.2.133", "192.0.2.133", 7, false)},
			want:  "192.0.2.133 via 192.0.2.133 by 2 peers 7\nheard true sure true announcing 1\n",
		},
		{
			name: "two hosts, one drains", peers: []bgp.PeerStatus{tells(bgp.IPv4, 0)},
			paths: []bgp.Sibling{path(rr1, vip, "192.0.2.134", "192.0.2.134", 7, true), path(rr1, vip, "192.0.2.133", "192.0.2.133", 7, false)},
			want:  "192.0.2.133 via 192.0.2.133 by 1 peers 7\n192.0.2.134 via 192.0.2.134 by 1 peers 7 draining\nheard true sure true announcing 1\n",
		},
		{
			name:  "two that say nothing of themselves",
			paths: []bgp.Sibling{path(rr1, vip, "", "192.0.2.134", 0, false), path(rr1, vip, "", "192.0.2.133", 0, false), path(rr2, vip, "", "192.0.2.133", 0, false)},
			want:  "invalid IP via 192.0.2.133 by 2 peers\ninvalid IP via 192.0.2.134 by 1 peers\nheard false sure false announcing 2\n",
		},
		{name: "another VIP", paths: []bgp.Sibling{path(rr1, "198.51.100.2", "", "192.0.2.134", 0, false)}, want: "heard false sure false announcing 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			of := addr(vip)
			if tt.of != "" {
				of = addr(tt.of)
			}
			if diff := cmp.Diff(tt.want, otherHosts(OthersOf([]netip.Addr{of}, tt.paths, tt.peers)[of])); diff != "" {
				t.Errorf("siblings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDisagree: hosts may differ for a while; for longer is told, until it ends.
func TestDisagree(t *testing.T) {
	vip := addr("198.51.100.1")
	announced := []VIP{{Addr: vip, State: Announced}}
	with := func(fingerprint uint32, draining bool) map[netip.Addr]Others {
		return OthersOf([]netip.Addr{vip}, []bgp.Sibling{path("192.0.2.254", "198.51.100.1", "192.0.2.133", "192.0.2.133", fingerprint, draining)}, nil)
	}
	own := map[netip.Addr]uint32{vip: 7}
	for _, tt := range []struct {
		name   string
		vips   []VIP
		others map[netip.Addr]Others
		own    map[netip.Addr]uint32
		before time.Duration // since when they differ; 0: they did not
		want   string
	}{
		{"the same tables", announced, with(7, false), own, 0, ""},
		{"the same again", announced, with(7, false), own, time.Hour, ""},
		{"just now another", announced, with(8, false), own, 0, "for 0s"},
		{"for a while", announced, with(8, false), own, 29 * time.Second, "for 29s"},
		{"for too long", announced, with(8, false), own, 30 * time.Second, "for 30s, standing"},
		{"another that drains", announced, with(8, true), own, time.Hour, ""},
		{"one that does not say", announced, with(0, false), own, time.Hour, ""},
		{"none of our own", announced, with(8, false), nil, time.Hour, ""},
		{"withdrawn here", []VIP{{Addr: vip}}, with(8, false), own, time.Hour, ""},
		{"draining here", []VIP{{Addr: vip, State: Draining}}, with(8, false), own, time.Hour, "for 1h0m0s, standing"},
		{"nobody else", announced, nil, own, time.Hour, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := map[netip.Addr]Disagreement{}
			if tt.before > 0 {
				before[vip] = Disagreement{Since: now.Add(-tt.before)}
			}
			got := ""
			if d, ok := Disagree(before, tt.vips, tt.others, tt.own, now, 30*time.Second)[vip]; ok {
				got = fmt.Sprintf("for %s", now.Sub(d.Since))
				if d.Standing {
					got += ", standing"
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFingerprints: one for all services on a VIP, whatever their order; none
// where one of them is not known.
func TestFingerprints(t *testing.T) {
	vip := addr("198.51.100.1")
	service := func(port uint16, scheduler string) l4.Service {
		return l4.Service{Key: l4.Key{VIP: vip, Port: port, Protocol: l4.TCP}, Scheduler: scheduler}
	}
	a, b, w := service(80, "mh"), service(443, "mh"), service(25, "wrr")
	tables := func(a80, b443 string) map[l4.Key]string {
		return map[l4.Key]string{a.Key: a80, b.Key: b443}
	}
	all := l4.Table{a, b, w}
	base := Fingerprints(all, all, tables("1-1", "2-2"))
	if len(base) != 1 {
		t.Fatalf("%v", base)
	}
	for name, tt := range map[string]struct {
		wanted, listed l4.Table
		tables         map[l4.Key]string
		same, none     bool
	}{
		"another order":               {l4.Table{w, b, a}, l4.Table{b, a, w}, tables("1-1", "2-2"), true, false},
		"another table":               {all, all, tables("1-1", "2-3"), false, false},
		"two tables changed places":   {all, all, tables("2-2", "1-1"), false, false},
		"one service less":            {l4.Table{a, b}, all, tables("1-1", "2-2"), false, false},
		"another scheduler":           {all, l4.Table{a, b, service(25, "rr")}, tables("1-1", "2-2"), false, false},
		"a table that nobody knows":   {all, all, tables("1-1", ""), false, true},
		"a service not in the kernel": {all, l4.Table{a, w}, tables("1-1", "2-2"), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := Fingerprints(tt.wanted, tt.listed, tt.tables)[vip]
			if ok == tt.none || ok && (got == base[vip]) != tt.same {
				t.Errorf("got %x, %v; the first one is %x", got, ok, base[vip])
			}
		})
	}
}

// TestSaying: the first fingerprint is said at once, and those that follow no
// faster than routers should have to learn them.
func TestSaying(t *testing.T) {
	vip := addr("198.51.100.1")
	var said map[netip.Addr]Say
	for _, step := range []struct {
		after     time.Duration
		now, want uint32
	}{{0, 1, 1}, {time.Second, 2, 1}, {1500 * time.Millisecond, 3, 1}, {2 * time.Second, 3, 3}, {3 * time.Second, 1, 3}, {4 * time.Second, 1, 1}, {time.Hour, 1, 1}} {
		said = Saying(said, now.Add(step.after), 2*time.Second, map[netip.Addr]uint32{vip: step.now})
		if got := said[vip].Fingerprint; got != step.want {
			t.Errorf("after %s: says %d, want %d", step.after, got, step.want)
		}
	}
	if said = Saying(said, now, time.Second, nil); len(said) != 0 {
		t.Errorf("says %v of what has no tables", said)
	}
}

// TestFailingScope: members that fail for this host alone are told apart from
// members that fail for all.
func TestFailingScope(t *testing.T) {
	vip := addr("198.51.100.1")
	for name, tt := range map[string]struct {
		others Others
		want   string
	}{
		"nobody tells":                {Others{}, "unknown: www has 0 of 2 members up, quorum 1"},
		"the best path tells of none": {Others{Heard: true}, "unknown: www has 0 of 2 members up, quorum 1"},
		"nobody else announces":       {Others{Heard: true, Sure: true}, "everywhere: www has 0 of 2 members up, quorum 1; no other host announces it"},
		"the only other one drains":   {Others{Sure: true, Siblings: []Sibling{{Draining: true}}}, "everywhere: www has 0 of 2 members up, quorum 1; no other host announces it"},
		"another host announces":      {Others{Siblings: []Sibling{{}}}, "here: www has 0 of 2 members up, quorum 1; other hosts still announce it"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &planner{cfg: &config.Config{}, obs: Observations{Now: now, Others: map[netip.Addr]Others{vip: tt.others}}}
			p.d.Services = []Service{{
				Config:   config.Service{Name: "www", VIPs: []netip.Addr{vip}},
				families: []family{{members: 2, quorum: 1, restore: 1}},
			}}
			p.vips()
			v := p.d.VIPs[0]
			if got := v.Failing.String() + ": " + v.Reason; got != tt.want || v.State != Withdrawn {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
