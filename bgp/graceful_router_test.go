package bgp

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

const (
	kept4, kept6 = "198.51.100.1/32", "2001:db8:1::1/128"
	gone4, gone6 = "198.51.100.2/32", "2001:db8:1::2/128"
	// settle is how long a router is given to do what it should not.
	settle = time.Second
)

// shownOf are the routes to prefixes as a router shows those of AS 65000.
func shownOf(as uint32, external string, prefixes ...string) []string {
	var all []string
	for _, prefix := range prefixes {
		path, pref, hop := "65000", external, "192.0.2.132"
		if as == 65000 {
			path, pref = "", " pref 100"
		}
		if strings.Contains(prefix, ":") {
			hop = "2001:db8::84"
		}
		all = append(all, fmt.Sprintf("%s path [%s] via %s%s", prefix, path, hop, pref))
	}
	return all
}

// keeping is a peer that is asked to keep the routes.
func keeping(as uint32) Peer {
	p := overIPv4(as)
	p.HoldTime, p.GracefulRestart = 3*time.Second, 30*time.Second
	return p
}

// lost are the prefixes that a router or its kernel had no route to for a
// moment.
func lost(t *testing.T, r router, l *losses) []string {
	t.Helper()
	all := append(r.withdrawn(t), strings.Fields(l.String())...)
	slices.Sort(all)
	return slices.Compact(all)
}

// A speaker that is killed, or leaves, and comes back: each router keeps the
// routes all along in both families, and drops those that are not announced
// again when it has heard the others.
func TestGracefulRestart(t *testing.T) {
	for _, test := range routers {
		for _, as := range []uint32{65000, 65010} {
			if as != 65000 && test.name == "GoBGP" {
				continue // it lets nobody call for 5 s after each loss
			}
			t.Run(fmt.Sprintf("%s/%d", test.name, as), func(t *testing.T) {
				r := test.start(t, sessions{as: as, keeps: true})
				say := speech{Peers: []Peer{keeping(as)}, Prefixes: []string{kept4, kept6, gone4, gone6}}
				p := startProcess(t, say)
				p.tells(t, "graceful_restart=30s")
				all := shownOf(as, test.pref, kept4, gone4, kept6, gone6)
				awaitEverything(t, r, all...)
				l := r.watch(t)
				say.Options.Preserved = IPv4 | IPv6
				for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGUSR2} {
					p.end(how)
					time.Sleep(settle)
					awaitEverything(t, r, all...)
					p = startProcess(t, say)
					p.tells(t, "kept=ipv4,ipv6")
					time.Sleep(settle)
					if lost := lost(t, r, l); len(lost) > 0 {
						t.Fatalf("after %s: lost %q", how, lost)
					}
				}
				p.end(syscall.SIGKILL)
				say.Prefixes = []string{kept4, kept6}
				startProcess(t, say)
				awaitEverything(t, r, shownOf(as, test.pref, kept4, kept6)...)
				if diff := gocmp.Diff([]string{gone4, gone6}, lost(t, r, l)); diff != "" {
					t.Errorf("lost (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// A speaker that comes back and can say of IPv4 alone that forwarding went on:
// the routers drop what they kept of IPv6 as soon as they hear it.
func TestGracefulRestartNotPreserved(t *testing.T) {
	for _, test := range routers {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t, sessions{as: 65000, keeps: true})
			say := speech{Peers: []Peer{keeping(65000)}, Prefixes: []string{kept4, kept6}}
			p := startProcess(t, say)
			awaitEverything(t, r, shownOf(65000, "", kept4, kept6)...)
			l := r.watch(t)
			p.end(syscall.SIGKILL)
			time.Sleep(settle)
			say.Options.Preserved = IPv4
			startProcess(t, say).tells(t, "kept=ipv4\n")
			time.Sleep(settle)
			awaitEverything(t, r, shownOf(65000, "", kept4, kept6)...)
			want := []string{kept6}
			if test.name == "GoBGP" {
				want = nil // it asks for no such thing, and waits for the End-of-RIB
			}
			if diff := gocmp.Diff(want, lost(t, r, l)); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
		})
	}
}

// A peer that offers no graceful restart loses the routes with the session and
// has them back with the next one.
func TestGracefulRestartNotOffered(t *testing.T) {
	for _, test := range routers {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t, sessions{as: 65000})
			say := speech{Peers: []Peer{keeping(65000)}, Prefixes: []string{kept4, kept6}}
			p := startProcess(t, say)
			p.tells(t, "families=ipv4-unicast,ipv6-unicast graceful_restart=\"not offered by the peer\"")
			awaitEverything(t, r, shownOf(65000, "", kept4, kept6)...)
			p.end(syscall.SIGKILL)
			awaitEverything(t, r)
			say.Options.Preserved = IPv4 | IPv6
			startProcess(t, say)
			awaitEverything(t, r, shownOf(65000, "", kept4, kept6)...)
		})
	}
}

// A speaker that hangs: the routes are gone with the hold time. GoBGP keeps
// them for the restart time after it, whatever RFC 4724 says.
func TestHoldTimeWithGracefulRestart(t *testing.T) {
	for _, test := range routers {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t, sessions{as: 65000, keeps: true})
			peer, most := keeping(65000), 20*time.Second // less than the restart time
			if test.name == "GoBGP" {
				peer.GracefulRestart = 4 * time.Second
			}
			p := startProcess(t, speech{Peers: []Peer{peer}, Prefixes: []string{kept4, kept6}})
			awaitEverything(t, r, shownOf(65000, "", kept4, kept6)...)
			begin := time.Now()
			if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			awaitEverything(t, r)
			took := time.Since(begin)
			t.Logf("routes gone after %s", took)
			if took > most {
				t.Errorf("routes gone after %s, want about the hold time of %s", took, peer.HoldTime)
			}
		})
	}
}
