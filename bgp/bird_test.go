package bgp

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bird is a BIRD in a network namespace of its own, on the other end of an
// interface.
type bird struct {
	dir    string
	uplink string // the interface on this side
}

// birds counts them. Each has an interface of another name, because package
// net remembers the index that belongs to a zone for a minute.
var birds atomic.Int32

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
	b := &bird{dir: t.TempDir(), uplink: fmt.Sprintf("uplink%d", birds.Add(1))}
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

	near, far := b.uplink, "downlink"
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
	defer func() { _ = ns.Close() }()
	theirs, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(err)
	defer func() { _ = theirs.Close() }()
	ours, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(err)
	defer func() { _ = ours.Close() }()
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
	// It drops routes whose next hop it has no address to reach from.
	eventually(t, func() (bool, string) {
		interfaces, err := b.ask("show interfaces")
		for _, a := range there {
			if !strings.Contains(interfaces, a) {
				return false, fmt.Sprintf("BIRD does not see %s (%v):\n%s", a, err, interfaces)
			}
		}
		return true, ""
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
