package l4

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// torn sends messages one by one and takes its time after each deletion, so
// that what otherwise happens between two packets happens between many.
type torn struct {
	sender
	pause time.Duration
}

func (s torn) send(batch []netlink.Message) (answers []error, err error) {
	for _, m := range batch {
		a, err := s.sender.send([]netlink.Message{m})
		if err != nil {
			return nil, err
		}
		answers = append(answers, a...)
		if m.Data[0] == cmdDelDest {
			time.Sleep(s.pause)
		}
	}
	return answers, nil
}

// letGo is a holder that does not hold.
type letGo struct{}

func (letGo) hold() error    { return nil }
func (letGo) release() error { return nil }

// TestKernelMovesFlowsInFlight has TCP flows run from a client through IPVS
// and IPIP to servers, moves the destinations under them, and expects that
// they do not notice. The same without the hold must break some, or the test
// shows nothing.
func TestKernelMovesFlowsInFlight(t *testing.T) {
	openInNamespace(t) // skips the whole test, where it does
	for _, tt := range []struct {
		name   string
		change func(*Kernel)
		broken bool
	}{
		{"as it is", func(*Kernel) {}, false},
		{"torn apart", func(k *Kernel) { k.conn = torn{k.conn, 100 * time.Millisecond} }, false},
		{"torn apart and not held", func(k *Kernel) {
			k.conn, k.nodest = torn{k.conn, 100 * time.Millisecond}, letGo{}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := openInNamespace(t)
			l := newLab(t, 4)
			sysctl(t, "net/ipv4/vs/expire_nodest_conn", "1")
			sysctl(t, "net/ipv4/vs/sloppy_tcp", "1")
			all := l.destinations
			apply(t, k, Table{www(all[0], all[2], all[3])})
			flows := l.start(t, 40)
			flows.progress(t, 3)

			tt.change(k)
			moved := 0
			for _, wanted := range [][]Destination{
				{all[0], all[1], all[2], all[3]}, // one in the middle moves the first
				{all[0], draining(all[1].Addr.String(), 1), all[2], draining(all[3].Addr.String(), 1)},
				{all[0], draining(all[1].Addr.String(), 0), draining(all[2].Addr.String(), 0), all[3]}, // two give up their slots
				{all[0], all[1], all[2], all[3]}, // and come back
			} {
				for _, op := range apply(t, k, Table{www(wanted...)}) {
					if strings.HasPrefix(op, "move ") {
						moved++
					}
				}
			}
			if moved < 4 {
				t.Errorf("%d destinations moved; that shows little", moved)
			}
			if !tt.broken {
				flows.progress(t, 3)
			}
			broken := flows.stop()
			if (len(broken) > 0) != tt.broken {
				t.Errorf("%d flows broken, want some: %t: %q", len(broken), tt.broken, broken)
			}
			if b, err := os.ReadFile(nodestPath); err != nil || strings.TrimSpace(string(b)) != "1" {
				t.Errorf("expire_nodest_conn is %q, %v", b, err)
			}
			t.Logf("%d destinations moved, %d of 40 flows broken", moved, len(broken))
		})
	}
}

// lab is a client and servers around the test's namespace, which is the load
// balancer. All are on one bridge; the servers answer the client directly.
type lab struct {
	client       netns.NsHandle
	destinations []Destination
}

// newLab wires the lab. Server i has the address 192.0.2.(101+i), and takes
// the VIP's connections on port 80 out of IPIP.
func newLab(t *testing.T, servers int) *lab {
	t.Helper()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bridge := &vnetlink.Bridge{LinkAttrs: vnetlink.LinkAttrs{Name: "br0"}}
	must(vnetlink.LinkAdd(bridge))
	must(vnetlink.LinkSetUp(bridge))
	addAddress(t, "br0", "192.0.2.2/24")
	addAddress(t, "lo", "198.51.100.1/32")

	// host makes a namespace with eth0 on the bridge and runs in it.
	host := func(name, addr string, in func()) netns.NsHandle {
		ns, err := netns.New()
		must(err)
		t.Cleanup(func() { ns.Close() })
		must(netns.Set(home))
		port := &vnetlink.Veth{
			LinkAttrs: vnetlink.LinkAttrs{Name: name, MasterIndex: bridge.Index},
			PeerName:  "eth0", PeerNamespace: vnetlink.NsFd(ns),
		}
		must(vnetlink.LinkAdd(port))
		must(vnetlink.LinkSetUp(port))
		must(netns.Set(ns))
		linkUp(t, "lo")
		linkUp(t, "eth0")
		addAddress(t, "eth0", addr)
		in()
		must(netns.Set(home))
		return ns
	}
	l := &lab{}
	l.client = host("client", "192.0.2.1/24", func() {
		_, vip, err := net.ParseCIDR("198.51.100.1/32")
		must(err)
		must(vnetlink.RouteAdd(&vnetlink.Route{Dst: vip, Gw: net.IPv4(192, 0, 2, 2)}))
	})
	for i := range servers {
		addr := fmt.Sprintf("192.0.2.%d", 101+i)
		host(fmt.Sprintf("server%d", i), addr+"/24", func() {
			must(vnetlink.LinkAdd(&vnetlink.Iptun{LinkAttrs: vnetlink.LinkAttrs{Name: "ipip0"}, Local: net.ParseIP(addr)}))
			linkUp(t, "ipip0")
			sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
			sysctl(t, "net/ipv4/conf/ipip0/rp_filter", "0")
			addAddress(t, "lo", "198.51.100.1/32")
			listener, err := net.Listen("tcp", "198.51.100.1:80")
			must(err)
			t.Cleanup(func() { listener.Close() })
			go echo(listener)
		})
		l.destinations = append(l.destinations, up(addr, 1))
	}
	return l
}

func linkUp(t *testing.T, name string) {
	t.Helper()
	link, err := vnetlink.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	if err := vnetlink.LinkSetUp(link); err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
}

func addAddress(t *testing.T, name, prefix string) {
	t.Helper()
	link, err := vnetlink.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	addr, err := vnetlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := vnetlink.AddrAdd(link, addr); err != nil {
		t.Fatalf("address %s: %v", prefix, err)
	}
}

// sysctl sets one of the namespace that the thread is in.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// echo sends back what it gets, on every connection.
func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// flows are connections on which a byte goes to and fro all the time.
type flows struct {
	list []*flow
	quit chan struct{}
	done sync.WaitGroup
}

type flow struct {
	conn   net.Conn
	rounds atomic.Int64
	err    error // when done
}

// start opens n connections from the client to the VIP.
func (l *lab) start(t *testing.T, n int) *flows {
	t.Helper()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(l.client); err != nil {
		t.Fatal(err)
	}
	f := &flows{quit: make(chan struct{})}
	for range n {
		conn, err := net.DialTimeout("tcp", "198.51.100.1:80", 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		one := &flow{conn: conn}
		f.list = append(f.list, one)
		f.done.Go(func() { one.err = one.run(f.quit) })
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *flow) run(quit <-chan struct{}) error {
	b := []byte("x")
	for {
		select {
		case <-quit:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
		if err := f.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := f.conn.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(f.conn, b); err != nil {
			return err
		}
		f.rounds.Add(1)
	}
}

// progress waits until each flow has gone to and fro n times more.
func (f *flows) progress(t *testing.T, n int64) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for i, one := range f.list {
		for want := one.rounds.Load() + n; one.rounds.Load() < want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("flow %d of %d does not move on", i, len(f.list))
				return
			}
		}
	}
}

// stop ends the flows and returns why some of them ended before.
func (f *flows) stop() []error {
	close(f.quit)
	f.done.Wait()
	var broken []error
	for _, one := range f.list {
		if one.err != nil {
			broken = append(broken, one.err)
		}
	}
	return broken
}
