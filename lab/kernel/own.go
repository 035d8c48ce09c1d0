package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// modules are what the lab asks of a kernel beyond namespaces and veth. A name
// that is unknown or built in is no fault: the probe decides, not modprobe.
var modules = []string{
	"ip_vs", "ip_vs_mh", "ip_vs_rr", "ipip", "ip6_tunnel", "sit", "ip_gre", "ip6_gre", "fou", "fou6",
	"dummy", "veth", "bridge", "sch_netem", "nf_tables",
}

var own struct {
	once sync.Once
	err  error
}

// Own tells whether this machine's own kernel will do: nil where it has IPVS
// with the mh scheduler, IPIP, dummy and veth, and this process may use them;
// else an error that names what is missing. It loads modules where it can
// and tries each thing in a network namespace that it throws away. The answer
// is found once per process.
func Own(ctx context.Context) error {
	own.once.Do(func() { own.err = probeOwn(ctx) })
	return own.err
}

func probeOwn(ctx context.Context) error {
	if modprobe, err := exec.LookPath("modprobe"); err == nil {
		// One call each: with -a, the first unknown name ends the list in some versions.
		for _, m := range modules {
			_ = exec.CommandContext(ctx, modprobe, "-q", m).Run()
		}
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread dies with the goroutine, and the namespace
		// with the thread.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("making a network namespace: %w", err)
			return
		}
		result <- probeNamespace()
	}()
	return <-result
}

// probeNamespace tries, in the calling thread's network namespace, all that
// the lab builds on. All faults are told, not only the first.
func probeNamespace() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	defer h.Close()
	var errs []error
	for _, link := range []netlink.Link{
		&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "probe-dummy"}},
		&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe-veth"}, PeerName: "probe-peer"},
		&netlink.Iptun{
			LinkAttrs: netlink.LinkAttrs{Name: "probe-ipip"},
			Local:     netip.MustParseAddr("192.0.2.1").AsSlice(),
			Remote:    netip.MustParseAddr("192.0.2.2").AsSlice(),
		},
		&netlink.Ip6tnl{
			LinkAttrs: netlink.LinkAttrs{Name: "probe-ip6tnl"},
			Local:     netip.MustParseAddr("2001:db8::1").AsSlice(),
			Remote:    netip.MustParseAddr("2001:db8::2").AsSlice(),
		},
	} {
		if err := h.LinkAdd(link); err != nil {
			errs = append(errs, fmt.Errorf("adding a %s device: %w", link.Type(), err))
		}
	}
	if err := probeIPVS(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// probeIPVS adds a service with the mh scheduler, which may be a module of its
// own that is missing where ip_vs is there.
func probeIPVS() error {
	c, err := ipvs.New()
	if err != nil {
		return fmt.Errorf("opening IPVS: %w", err)
	}
	if closer, ok := c.(io.Closer); ok {
		defer closer.Close()
	}
	err = c.CreateService(ipvs.Service{
		Address:   netip.MustParseAddr("192.0.2.1"),
		Netmask:   netmask.MaskFrom(32, 32),
		Family:    ipvs.INET,
		Protocol:  ipvs.TCP,
		Port:      80,
		Scheduler: "mh",
	})
	if err != nil {
		return fmt.Errorf("adding an IPVS service with the mh scheduler: %w", err)
	}
	return nil
}

// requireRoot says what to do where root is missing, in place of the bare
// EPERM of the first mount.
func requireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("running a lab machine: needs root (try sudo)")
	}
	return nil
}
