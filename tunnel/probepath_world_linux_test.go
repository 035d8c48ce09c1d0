package tunnel_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
	"lb4d/tunnel"
)

// inNamespaceOfItsOwn runs the test once more, in a process of its own that is
// in a new network namespace as a whole: the observer's goroutines may run on any
// thread. It returns whether this is that process; the other one has nothing
// left to do.
func inNamespaceOfItsOwn(t *testing.T) bool {
	t.Helper()
	const inside = "LB4D_TEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	// The child dies with the thread that made it, which must not be one that
	// another test ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		nstest.Lacking(t, "making a network namespace: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
	return false
}

// The addresses of the LB4. Those of the LB7 hosts end in 139 and 140, or 8b and
// 8c.
const (
	vip4, vip6   = "198.51.100.1", "2001:db8:1::1"
	lb4v4, lb4v6 = "192.0.2.1", "2001:db8:2::1"
)

// world is an LB4, in the namespace of the process, and two LB7 hosts, joined by
// a switch.
type world struct {
	t     *testing.T
	host  *tunnel.Host
	here  *place
	wire  *place // the switch
	lb7s  []*lb7
	marks map[netip.Addr]uint32 // of each member's service
}

// lb7 is an LB7 with a server that names it.
type lb7 struct {
	*place
	name    string
	members []netip.Addr
	servers []net.Listener
	// unreset counts the connections that ended otherwise than with a reset.
	unreset atomic.Int32
}

// newWorld brings it all up, with an underlay of that MTU.
func newWorld(t *testing.T, mtu int) *world {
	t.Helper()
	for _, module := range []string{"ipv6", "ip_vs", "ip_vs_rr", "ipip", "ip6_tunnel", "veth", "dummy", "bridge"} {
		// What is built in is no module, and what is missing is told below.
		_ = exec.Command("modprobe", "-q", module).Run()
	}
	if out, err := exec.Command("ipvsadm", "-L", "-n").CombinedOutput(); err != nil {
		nstest.Lacking(t, "this kernel has no IPVS, or the machine no ipvsadm: %v\n%s", err, out)
	}
	w := &world{t: t, here: &place{t: t}, wire: newPlace(t), marks: map[netip.Addr]uint32{}}
	var err error
	if w.here.ns, err = netns.Get(); err != nil {
		t.Fatal(err)
	}
	if w.here.handle, err = netlink.NewHandle(); err != nil {
		t.Fatal(err)
	}
	if w.host, err = tunnel.OpenHost(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.host.Close() })

	must(t, w.wire.handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}))
	w.wire.up("switch")
	w.here.up("lo")
	w.plug(w.here, "uplink", "lb4", lb4v4+"/24", lb4v6+"/64")
	for i, hex := range []string{"8b", "8c"} {
		w.addLB7(fmt.Sprintf("lb7-%d", i+1), fmt.Sprintf("192.0.2.%d", 139+i), "2001:db8:2::"+hex)
	}
	w.setMTU(mtu, "lb4", "lb7-1", "lb7-2")
	w.here.setMTU("uplink", mtu)
	for _, l := range w.lb7s {
		l.setMTU("eth0", mtu)
	}

	if _, err := tunnel.ApplySysctls(tunnel.LB4Sysctls()); err != nil {
		t.Fatal(err)
	}
	var ops []tunnel.AddressOp
	for _, vip := range []string{vip4, vip6} {
		ops = append(ops, tunnel.AddressOp{Addr: netip.MustParseAddr(vip)})
	}
	if _, err := w.host.ApplyAddresses(ops); err != nil {
		t.Fatal(err)
	}
	return w
}

// plug gives a place a device that leads to a port of the switch.
func (w *world) plug(p *place, device, port string, addresses ...string) {
	w.t.Helper()
	must(w.t, p.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: port, PeerNamespace: netlink.NsFd(int(w.wire.ns)),
	}))
	w.wire.up(port)
	must(w.t, w.wire.handle.LinkSetMaster(w.wire.link(port), w.wire.link("switch")))
	p.up(device)
	for _, a := range addresses {
		p.add(device, a)
	}
}

// setMTU is that of ports of the switch.
func (w *world) setMTU(mtu int, ports ...string) {
	w.t.Helper()
	for _, port := range ports {
		w.wire.setMTU(port, mtu)
	}
	w.wire.setMTU("switch", mtu)
}

// addLB7 brings up an LB7, and a service of the LB4 for each of its addresses.
func (w *world) addLB7(name string, addresses ...string) {
	w.t.Helper()
	l := &lb7{place: newPlace(w.t), name: name}
	w.lb7s = append(w.lb7s, l)
	l.up("lo")
	w.plug(l.place, "eth0", name, addresses[0]+"/24", addresses[1]+"/64")
	must(w.t, l.handle.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "vips"}}))
	l.up("vips")
	l.add("vips", vip4+"/32")
	l.add("vips", vip6+"/128")
	for _, device := range []string{"tunl0", "ip6tnl0"} {
		l.up(device)
	}
	// The answer leaves by another device than the packet came in by.
	for _, device := range []string{"all", "tunl0"} {
		l.set("net.ipv4.conf."+device+".rp_filter", "0")
	}
	l.serve()
	w.t.Cleanup(l.stop)
	for _, a := range addresses {
		member := netip.MustParseAddr(a)
		mark := uint32(11 + len(w.marks))
		l.members = append(l.members, member)
		w.marks[member] = mark
		service, real := fmt.Sprintf("-f %d", mark), a+":0"
		if member.Is6() {
			service, real = service+" -6", "["+a+"]:0"
		}
		nstest.Run(w.t, "ipvsadm -A "+service+" -s rr")
		nstest.Run(w.t, "ipvsadm -a "+service+" -r "+real+" -i")
	}
}

// serve answers every request, to whatever address of the LB7, with its name.
func (l *lb7) serve() {
	l.t.Helper()
	l.in(func() error {
		for _, network := range []string{"tcp4", "tcp6"} {
			listener, err := net.Listen(network, ":80")
			if err != nil {
				return err
			}
			l.servers = append(l.servers, listener)
		}
		return nil
	})
	for _, listener := range l.servers {
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go l.answer(conn)
			}
		}()
	}
}

func (l *lb7) answer(conn net.Conn) {
	defer conn.Close()
	var request []byte
	buf := make([]byte, 4096)
	for !strings.HasSuffix(string(request), "\r\n\r\n") {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		request = append(request, buf[:n]...)
	}
	fmt.Fprintf(conn, "HTTP/1.1 200 %s\r\nContent-Length: 0\r\n\r\n", l.name)
	if _, err := conn.Read(buf); !errors.Is(err, unix.ECONNRESET) {
		l.unreset.Add(1)
	}
}

// stop ends the servers.
func (l *lb7) stop() {
	for _, listener := range l.servers {
		listener.Close()
	}
	l.servers = nil
}

// deafen makes every LB7 keep silent to datagrams, as one does that has a
// firewall.
func (w *world) deafen() {
	w.t.Helper()
	for _, l := range w.lb7s {
		for _, member := range l.members {
			l.in(func() error {
				conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 33434 + int(w.marks[member])})
				if err == nil {
					l.t.Cleanup(func() { conn.Close() })
				}
				return err
			})
		}
	}
}

// place is a network namespace.
type place struct {
	t      *testing.T
	ns     netns.NsHandle
	handle *netlink.Handle
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var err error
		p.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.ns.Close() })
	var err error
	if p.handle, err = netlink.NewHandleAt(p.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.handle.Close() })
	return p
}

// in calls f on a thread that is in the place.
func (p *place) in(f func() error) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as above
		err := netns.Set(p.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	must(p.t, <-done)
}

func (p *place) link(device string) netlink.Link {
	p.t.Helper()
	link, err := p.handle.LinkByName(device)
	if err != nil {
		p.t.Fatalf("device %s: %v", device, err)
	}
	return link
}

func (p *place) up(device string) {
	p.t.Helper()
	must(p.t, p.handle.LinkSetUp(p.link(device)))
}

func (p *place) down(device string) {
	p.t.Helper()
	must(p.t, p.handle.LinkSetDown(p.link(device)))
}

func (p *place) setMTU(device string, mtu int) {
	p.t.Helper()
	must(p.t, p.handle.LinkSetMTU(p.link(device), mtu))
}

func (p *place) addr(a string) *netlink.Addr {
	p.t.Helper()
	addr, err := netlink.ParseAddr(a)
	must(p.t, err)
	if strings.Contains(a, ":") {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

func (p *place) add(device, address string) {
	p.t.Helper()
	must(p.t, p.handle.AddrAdd(p.link(device), p.addr(address)))
}

func (p *place) remove(device, address string) {
	p.t.Helper()
	must(p.t, p.handle.AddrDel(p.link(device), p.addr(address)))
}

// subnets are the routes of eth0 to the LB4, in either family, as the kernel
// made them.
func (p *place) subnets() []*netlink.Route {
	p.t.Helper()
	var routes []*netlink.Route
	for i, to := range []string{"192.0.2.0/24", "2001:db8:2::/64"} {
		dst, err := netlink.ParseIPNet(to)
		must(p.t, err)
		routes = append(routes, &netlink.Route{
			LinkIndex: p.link("eth0").Attrs().Index, Dst: dst,
			Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_KERNEL, Priority: []int{0, 256}[i],
		})
	}
	return routes
}

func (p *place) set(key, value string) {
	p.t.Helper()
	p.in(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
}

func (p *place) get(key string) (value string) {
	p.t.Helper()
	p.in(func() error {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
