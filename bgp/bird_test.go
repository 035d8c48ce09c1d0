package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bird is a BIRD in a network namespace of its own, on the other end of the
// interface "uplink".
type bird struct {
	dir string
}

// needBird skips a test that this machine cannot run, unless it must.
func needBird(t *testing.T) {
	t.Helper()
	reason := ""
	if _, err := exec.LookPath("bird"); err != nil {
		reason = "needs BIRD 2 (package bird2)"
	} else if os.Getenv(isolated) == "" {
		reason = "needs root, for network namespaces"
	}
	switch {
	case reason == "":
	case os.Getenv("LAB_REQUIRED") == "1":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

// startBird starts BIRD with a configuration, here and there being the
// addresses of the two ends of the link.
func startBird(t *testing.T, config string, here, there []string) *bird {
	t.Helper()
	needBird(t)
	b := &bird{dir: t.TempDir()}
	config = fmt.Sprintf(`
log %q all;
debug protocols { states, routes };
router id 192.0.2.254;
protocol device { }
`, b.log()) + config
	if err := os.WriteFile(b.path("bird.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bird", "-f", "-c", b.path("bird.conf"), "-s", b.path("ctl"), "-P", b.path("pid"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(b.log())
			t.Logf("log of BIRD:\n%s", log)
		}
	})

	const near, far = "uplink", "downlink"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: near}, PeerName: far}))
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(near); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	link, err := netlink.LinkByName(far)
	must(err)
	must(netlink.LinkSetNsPid(link, cmd.Process.Pid))
	ns, err := netns.GetFromPid(cmd.Process.Pid)
	must(err)
	defer ns.Close()
	theirs, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(err)
	defer theirs.Close()
	ours, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(err)
	defer ours.Close()
	for _, end := range []struct {
		handle    *netlink.Handle
		name      string
		addresses []string
	}{{ours, near, here}, {theirs, far, there}} {
		link, err := end.handle.LinkByName(end.name)
		must(err)
		// No other link-local addresses than those of the test.
		must(end.handle.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE))
		must(end.handle.LinkSetUp(link))
		for _, a := range end.addresses {
			address, err := netlink.ParseAddr(a)
			must(err)
			if address.IP.To4() == nil {
				address.Flags = unix.IFA_F_NODAD // at once, not after a second
			}
			must(end.handle.AddrAdd(link, address))
		}
	}
	eventually(t, func() (bool, string) {
		_, err := b.ask("show status")
		return err == nil, fmt.Sprint("BIRD does not answer: ", err)
	})
	return b
}

func (b *bird) path(name string) string { return filepath.Join(b.dir, name) }
func (b *bird) log() string             { return b.path("log") }

// ask puts a question to BIRD.
func (b *bird) ask(command string) (string, error) {
	conn, err := net.Dial("unix", b.path("ctl"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\n", command); err != nil {
		return "", err
	}
	// A reply ends with a line "CODE text", CODE not being followed by "-".
	// The greeting is one such line too.
	var reply strings.Builder
	end := regexp.MustCompile(`(?m)^[0-9]{4} .*\n`)
	buf := make([]byte, 64<<10)
	for len(end.FindAllString(reply.String(), -1)) < 2 {
		n, err := conn.Read(buf)
		if err != nil {
			return reply.String(), err
		}
		reply.Write(buf[:n])
	}
	return reply.String(), nil
}

var birdRoute = regexp.MustCompile(`^(?:\d{4}-| )?([0-9a-f.:]+/\d+) +unicast`)

// routes are those that a protocol of BIRD's brought in, one line each.
func (b *bird) routes(t *testing.T, protocol string) []string {
	t.Helper()
	var lines []string
	for _, table := range []string{"master4", "master6"} {
		reply, err := b.ask(fmt.Sprintf("show route table %s protocol %s all", table, protocol))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(reply, "\n") {
			if m := birdRoute.FindStringSubmatch(line); m != nil {
				lines = append(lines, m[1])
				continue
			}
			if len(lines) == 0 {
				continue
			}
			last := &lines[len(lines)-1]
			name, value, _ := strings.Cut(strings.TrimLeft(line, "0123456789- \t"), ": ")
			switch name {
			case "BGP.as_path", "BGP.local_pref", "BGP.origin":
				if value = strings.TrimSpace(value); value != "" {
					*last += " " + value
				}
			case "BGP.next_hop":
				*last += " via " + strings.Fields(value)[0]
			case "BGP.community":
				*last += " " + value
			}
		}
	}
	return lines
}

func (b *bird) await(t *testing.T, protocol string, want ...string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		diff := cmp.Diff(want, b.routes(t, protocol))
		return diff == "", "routes of BIRD protocol " + protocol + " (-want +got):\n" + diff
	})
}

// told is what BIRD's log says happened to prefixes, and by which protocol.
// What it told it forgets.
func (b *bird) told(t *testing.T) []string {
	t.Helper()
	log, err := os.ReadFile(b.log())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, m := range regexp.MustCompile(`(\w+\.ipv[46]) > (\w+)`).FindAllStringSubmatch(string(log), -1) {
		told = append(told, m[1]+" "+m[2])
	}
	if err := os.Truncate(b.log(), 0); err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	return told
}

const (
	birdHost = `
template bgp host {
  local as %d;
  direct;
  %s;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`
	birdOver4 = "protocol bgp over4 from host { neighbor 192.0.2.132 as 65000; source address 192.0.2.254; }\n"
	birdOver6 = "protocol bgp over6 from host { neighbor 2001:db8::84 as 65000; source address 2001:db8::fe; }\n"
)

var (
	here  = []string{"192.0.2.132/24", "2001:db8::84/64", "fe80::84/64"}
	there = []string{"192.0.2.254/24", "2001:db8::fe/64", "fe80::fe/64"}
)

func overIPv4(as uint32) Peer {
	return Peer{Name: "over4", Address: netip.MustParseAddr("192.0.2.254"), AS: as, HoldTime: 6 * time.Second}
}

func overIPv6(as uint32) Peer {
	return Peer{Name: "over6", Address: netip.MustParseAddr("2001:db8::fe"), AS: as, HoldTime: 6 * time.Second}
}

// Both address families arrive over sessions of both, with next hops that a
// router can use, and with BIRD as an internal and as an external peer.
func TestBirdNextHops(t *testing.T) {
	for _, test := range []struct {
		name   string
		as     uint32
		v4, v6 string
	}{
		{"internal", 65000, "IGP via 192.0.2.132 100", "IGP via 2001:db8::84 100"},
		{"external", 65010, "IGP 65000 via 192.0.2.132 100", "IGP 65000 via 2001:db8::84 100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := startBird(t, fmt.Sprintf(birdHost, test.as, "passive")+birdOver4+birdOver6, here, there)
			s, _ := startSpeaker(t, Options{})
			if err := s.Set([]Route{
				{netip.MustParsePrefix("198.51.100.1/32"), []uint32{65000<<16 | 100}},
				{netip.MustParsePrefix("2001:db8:1::1/128"), []uint32{65000<<16 | 100}},
			}); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			if err := s.SetPeers([]Peer{overIPv4(test.as), overIPv6(test.as)}); err != nil {
				t.Fatal(err)
			}
			want := []string{
				"198.51.100.1/32 " + test.v4 + " (65000,100)",
				"2001:db8:1::1/128 " + test.v6 + " (65000,100)",
			}
			b.await(t, "over4", want...)
			b.await(t, "over6", want...)
			t.Logf("routes at BIRD %s after SetPeers", time.Since(begun))
			for _, p := range s.Peers() {
				if p.State != stateEstablished || p.Advertised != 2 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// Each of the two ways to find a next hop for the other family, alone.
func TestBirdOnePeer(t *testing.T) {
	want := []string{"198.51.100.1/32 IGP via 192.0.2.132 100", "2001:db8:1::1/128 IGP via 2001:db8::84 100"}
	for _, test := range []struct {
		protocol, config string
		peer             Peer
	}{
		{"over4", birdOver4, overIPv4(65000)},
		{"over6", birdOver6, overIPv6(65000)},
		{
			"scoped", "protocol bgp scoped from host { neighbor fe80::84 % 'downlink' as 65000; source address fe80::fe; }\n",
			Peer{Name: "scoped", Address: netip.MustParseAddr("fe80::fe%uplink"), AS: 65000},
		},
	} {
		t.Run(test.protocol, func(t *testing.T) {
			b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+test.config, here, there)
			s, _ := startSpeaker(t, Options{})
			if err := s.SetPeers([]Peer{test.peer}); err != nil {
				t.Fatal(err)
			}
			if err := s.Set(prefixes("198.51.100.1/32", "2001:db8:1::1/128")); err != nil {
				t.Fatal(err)
			}
			b.await(t, test.protocol, want...)
		})
	}
}

// GRACEFUL_SHUTDOWN replaces a route, and the withdrawal comes only after it.
func TestBirdGracefulShutdown(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+birdOver4, here, there)
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{overIPv4(65000)}); err != nil {
		t.Fatal(err)
	}
	const v4, v6 = "198.51.100.1/32", "2001:db8:1::1/128"
	for _, step := range []struct {
		set    []Route
		want   []string
		events []string
	}{
		{
			prefixes(v4, v6),
			[]string{v4 + " IGP via 192.0.2.132 100", v6 + " IGP via 2001:db8::84 100"},
			[]string{"over4.ipv4 added", "over4.ipv6 added"},
		},
		{
			[]Route{{netip.MustParsePrefix(v4), []uint32{GracefulShutdown}}, {netip.MustParsePrefix(v6), []uint32{GracefulShutdown}}},
			[]string{v4 + " IGP via 192.0.2.132 100 (65535,0)", v6 + " IGP via 2001:db8::84 100 (65535,0)"},
			[]string{"over4.ipv4 added", "over4.ipv6 added"}, // BIRD's word for a replacement too
		},
		{nil, nil, []string{"over4.ipv4 removed", "over4.ipv6 removed"}},
	} {
		if err := s.Set(step.set); err != nil {
			t.Fatal(err)
		}
		b.await(t, "over4", step.want...)
		if diff := cmp.Diff(step.events, b.told(t)); diff != "" {
			t.Errorf("what BIRD was told (-want +got):\n%s", diff)
		}
	}
}

// Both sides call and listen at once, as BIRD does unless told otherwise.
func TestBirdBothCall(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "connect delay time 1; connect retry time 1")+birdOver4+birdOver6, here, there)
	s, _ := startSpeaker(t, Options{ListenPort: 179})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPeers([]Peer{overIPv4(65000), overIPv6(65000)}); err != nil {
		t.Fatal(err)
	}
	b.await(t, "over4", "198.51.100.1/32 IGP via 192.0.2.132 100")
	b.await(t, "over6", "198.51.100.1/32 IGP via 192.0.2.132 100")
}

// An interface that loses its IPv6 address takes the IPv6 routes with it, and
// brings them back.
func TestBirdAddressGoes(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+birdOver4, here, there)
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{overIPv4(65000)}); err != nil {
		t.Fatal(err)
	}
	routes := prefixes("198.51.100.1/32", "2001:db8:1::1/128")
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	v4, v6 := "198.51.100.1/32 IGP via 192.0.2.132 100", "2001:db8:1::1/128 IGP via 2001:db8::84 100"
	b.await(t, "over4", v4, v6)
	link, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	address, err := netlink.ParseAddr(here[1])
	if err != nil {
		t.Fatal(err)
	}
	address.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrDel(link, address); err != nil {
		t.Fatal(err)
	}
	want := "announcing 1 IPv6 routes: no global IPv6 address on the interface towards 192.0.2.254 to be their next hop"
	if err := s.Set(routes); err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	b.await(t, "over4", v4)
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	b.await(t, "over4", v4, v6)
}
