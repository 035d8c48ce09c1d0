package bgp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// neighbour is a network namespace at the other end of an interface, in which a
// router's processes run.
type neighbour struct {
	dir    string // for their files; any user may enter it
	uplink string // the interface on this side
	pid    int    // of a process in the namespace
	routes *netlink.Handle
}

// neighbours counts them. Each has an interface of another name, because
// package net remembers the index that belongs to a zone for a minute.
var neighbours atomic.Int32

// need skips a test that this machine cannot run, for lack of a program or of
// privileges, unless it must.
func need(t *testing.T, what string, programs ...string) {
	t.Helper()
	reason := ""
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			reason = "needs " + what
		}
	}
	if os.Getenv(isolated) == "" {
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

// startNeighbour makes a neighbour, here and there being the addresses of the
// two ends of the link.
func startNeighbour(t *testing.T, here, there []string) *neighbour {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := &neighbour{dir: t.TempDir(), uplink: fmt.Sprintf("uplink%d", neighbours.Add(1))}
	for dir := n.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(os.Chmod(dir, 0o755))
	}
	must(os.Chmod(n.dir, 0o777))
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(holder.Start())
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	n.pid = holder.Process.Pid

	const far = "downlink"
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: n.uplink}, PeerName: far}))
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(n.uplink); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	link, err := netlink.LinkByName(far)
	must(err)
	must(netlink.LinkSetNsPid(link, n.pid))
	ns, err := netns.GetFromPid(n.pid)
	must(err)
	defer func() { _ = ns.Close() }()
	n.routes, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(err)
	t.Cleanup(func() { _ = n.routes.Close() })
	ours, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(err)
	defer func() { _ = ours.Close() }()
	lo, err := n.routes.LinkByName("lo")
	must(err)
	must(n.routes.LinkSetUp(lo))
	for _, end := range []struct {
		handle    *netlink.Handle
		name      string
		addresses []string
	}{{ours, n.uplink, here}, {n.routes, far, there}} {
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
	return n
}

func (n *neighbour) path(name string) string { return filepath.Join(n.dir, name) }

// write makes a file.
func (n *neighbour) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(n.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return n.path(name)
}

// command is a program in the namespace.
func (n *neighbour) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(n.pid), "-n", "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a program that runs until the test ends. Its output is shown
// where the test fails, and returned as a file.
func (n *neighbour) start(t *testing.T, name string, args ...string) (output string) {
	t.Helper()
	cmd := n.command(name, args...)
	file, err := os.Create(n.path(filepath.Base(name) + ".out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Start()
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		n.show(t, file.Name())
	})
	return file.Name()
}

// show logs the end of a file where the test has failed.
func (n *neighbour) show(t *testing.T, file string) {
	if !t.Failed() {
		return
	}
	content, _ := os.ReadFile(file)
	t.Logf("%s:\n%s", filepath.Base(file), content[max(0, len(content)-8000):])
}

// run runs a program in the namespace to its end.
func (n *neighbour) run(name string, args ...string) (string, error) {
	out, err := n.command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// nextHops are those that the kernel of the neighbour has for a prefix, sorted.
func (n *neighbour) nextHops(t *testing.T, prefix string) []string {
	t.Helper()
	to, err := netlink.ParseIPNet(prefix)
	if err != nil {
		t.Fatal(err)
	}
	family := netlink.FAMILY_V4
	if to.IP.To4() == nil {
		family = netlink.FAMILY_V6
	}
	routes, err := n.routes.RouteListFiltered(family, &netlink.Route{Dst: to}, netlink.RT_FILTER_DST)
	if err != nil {
		t.Fatal(err)
	}
	var hops []string
	for _, r := range routes {
		if r.Gw != nil {
			hops = append(hops, r.Gw.String())
		}
		for _, path := range r.MultiPath {
			hops = append(hops, path.Gw.String())
		}
	}
	slices.Sort(hops)
	return slices.Compact(hops)
}
