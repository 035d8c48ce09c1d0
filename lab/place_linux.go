package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cloudflare/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netnsDir is where ip netns looks for names.
const netnsDir = "/run/netns"

// place is an OS thread that lives in the namespaces of one host: network,
// mounts and host name. Whatever is done for the host (a socket opened, a
// program started) is done on that thread, and so inside. It is cheaper by
// far than a program that enters the namespaces first, since every fork counts
// where the kernel is slow; and programs can be told to die with the thread.
type place struct {
	name  string
	calls chan func()
	ended chan struct{}
	// rtnl is bound to the host's network.
	rtnl *netlink.Handle
	// ipvs is opened when it is first needed.
	ipvs ipvs.Client
	// netns refers to the host's network namespace.
	netns *os.File
}

// openPlace makes the namespaces of a host. Each of own, an absolute path that
// must exist, is replaced by the directory of the same path below root.
func openPlace(name, root string, own []string) (*place, error) {
	p := &place{name: name, calls: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(p.ended)
		// Never unlocked: the thread must not serve other goroutines after
		// this, so it ends with this one.
		runtime.LockOSThread()
		err := p.enter(root, own)
		ready <- err
		if err != nil {
			return
		}
		for f := range p.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		<-p.ended
		p.release()
		return nil, fmt.Errorf("making the namespaces of %s: %w", name, err)
	}
	return p, nil
}

// enter moves the calling thread into new namespaces.
func (p *place) enter(root string, own []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unsharing the network: %w", err)
	}
	// This mount is made in the lab's own mount namespace, so that all see it.
	if err := pin("/proc/thread-self/ns/net", filepath.Join(netnsDir, p.name)); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unsharing the mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	// A sysfs shows the network of the thread that mounted it.
	if err := unix.Mount("lab", "/sys", "sysfs", unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	for _, dir := range own {
		if err := unix.Mount(filepath.Join(root, dir), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting the host's own %s: %w", dir, err)
		}
	}
	if err := unix.Sethostname([]byte(p.name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	var err error
	if p.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	if p.rtnl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	return nil
}

// pin gives a namespace a name in the file system, which keeps it.
func pin(ns, at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("naming the network namespace: %s is there already: is another lab up?", at)
	}
	if err != nil {
		return fmt.Errorf("naming the network namespace: %w", err)
	}
	f.Close()
	if err := unix.Mount(ns, at, "", unix.MS_BIND, ""); err != nil {
		os.Remove(at)
		return fmt.Errorf("naming the network namespace: %w", err)
	}
	return nil
}

// do runs f on the place's thread and waits for it. Calls are served one by
// one, so f must not block.
func (p *place) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case p.calls <- func() { result <- f() }:
		return <-result
	case <-p.ended:
		return fmt.Errorf("entering %s: the lab is closed", p.name)
	}
}

// close ends the thread, and with it all that was started on it. No call may
// be under way or follow.
func (p *place) close() {
	close(p.calls)
	<-p.ended
	p.release()
}

// release drops what outlives the thread.
func (p *place) release() {
	if p.rtnl != nil {
		p.rtnl.Close()
	}
	if p.netns != nil {
		p.netns.Close()
	}
	if c, ok := p.ipvs.(io.Closer); ok {
		c.Close()
	}
	at := filepath.Join(netnsDir, p.name)
	if unix.Unmount(at, unix.MNT_DETACH) == nil {
		os.Remove(at)
	}
}
