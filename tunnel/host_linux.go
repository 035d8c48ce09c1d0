package tunnel

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host keeps the VIPs of one network namespace: the one that the calling thread
// was in when OpenHost made it. It is meant for one goroutine, which needs
// CAP_NET_ADMIN.
type Host struct {
	handle *netlink.Handle
}

// netlinkTimeout bounds each answer of the kernel, which takes microseconds.
const netlinkTimeout = 10 * time.Second

// OpenHost connects to the kernel and changes nothing.
func OpenHost() (*Host, error) {
	handle, err := netlink.NewHandleWithOptions(netlink.HandleOptions{
		DisableVFInfoCollection: true,
		RetryInterrupted:        true,
	}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	if err := handle.SetSocketTimeout(netlinkTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the timeout of rtnetlink: %w", err), handle.Close())
	}
	return &Host{handle: handle}, nil
}

// Close closes the netlink socket. The addresses stay.
func (h *Host) Close() error {
	if err := h.handle.Close(); err != nil {
		return fmt.Errorf("closing rtnetlink: %w", err)
	}
	return nil
}

// Addresses returns the VIPs that the host has on Device and takes packets for,
// sorted. They are none where the device does not exist, or is down: IPv4
// addresses of a device that is down are listed by the kernel and are not local.
// Nor is an address whose route in the local table somebody has deleted: IPVS,
// which hooks into local delivery, would never see its packets.
//
// Addresses with a shorter prefix, and the kernel's own link-local ones, are no
// VIPs and left out.
func (h *Host) Addresses() ([]netip.Addr, error) {
	link, err := h.device()
	if err != nil || link == nil || link.Attrs().Flags&net.FlagUp == 0 {
		return nil, err
	}
	listed, err := h.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing addresses of %s: %w", Device, err)
	}
	return h.delivered(listed)
}

// delivered are the VIPs among the addresses of Device.
func (h *Host) delivered(listed []netlink.Addr) ([]netip.Addr, error) {
	local, err := h.local()
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, l := range listed {
		addr, ok := netip.AddrFromSlice(l.IP)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		if bits, _ := l.Mask.Size(); bits == addr.BitLen() && !addr.IsLinkLocalUnicast() && local[addr] {
			addresses = append(addresses, addr)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses, nil
}

// local returns the addresses that the kernel delivers locally. It adds a route
// for each address of a device by itself (fib_frontend.c, fib_add_ifaddr;
// addrconf.c, addrconf_f6i_alloc); by which device does not matter, as where an
// address is on two.
func (h *Host) local() (map[netip.Addr]bool, error) {
	local := map[netip.Addr]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.handle.RouteListFiltered(family,
			&netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return nil, fmt.Errorf("listing local routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			if addr, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				local[addr.Unmap()] = true
			}
		}
	}
	return local, nil
}

// ApplyAddresses applies the operations in order and returns how many were. It
// makes the device and sets it up where an address is to be added. One operation
// that fails does not keep the others from being tried; the error joins one line
// for each.
func (h *Host) ApplyAddresses(ops []AddressOp) (applied int, err error) {
	link, err := h.device()
	if err == nil && slices.ContainsFunc(ops, func(o AddressOp) bool { return !o.Remove }) {
		link, err = h.prepare(link)
	}
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, op := range ops {
		var err error
		switch {
		case !op.Remove:
			err = h.add(link, op.Addr)
		case link != nil:
			err = h.remove(link, op.Addr)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("applying %q: %w", op, err))
			continue
		}
		applied++
	}
	return applied, errors.Join(errs...)
}

// device returns the device that holds the VIPs, or nil where there is none.
func (h *Host) device() (netlink.Link, error) {
	link, err := h.handle.LinkByName(Device)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for device %s: %w", Device, err)
	}
	if err := checkDevice(link); err != nil {
		return nil, err
	}
	return link, nil
}

// checkDevice refuses a device of another sort. Whoever made one of that name did
// not mean ours, and its addresses are not ours to remove.
func checkDevice(link netlink.Link) error {
	if link.Type() != "dummy" {
		return fmt.Errorf("device %s is of type %s, not dummy: rename or delete it", Device, link.Type())
	}
	return nil
}

// prepare makes the device, where it is nil, and sets it up.
func (h *Host) prepare(link netlink.Link) (netlink.Link, error) {
	if link == nil {
		// The kernel loads the driver by itself where it has it
		// (rtnetlink.c, request_module of rtnl-link-dummy).
		err := h.handle.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: Device}})
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil, fmt.Errorf(`making device %s: this kernel has no dummy devices; load them with "modprobe dummy", or boot a kernel that has them: %w`, Device, err)
		case err != nil && !errors.Is(err, unix.EEXIST):
			return nil, fmt.Errorf("making device %s: %w", Device, explain(err))
		}
		if link, err = h.device(); err != nil {
			return nil, err
		}
		if link == nil {
			return nil, fmt.Errorf("making device %s: it is gone again; does another program delete it?", Device)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := h.handle.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("setting device %s up: %w", Device, explain(err))
		}
	}
	return link, nil
}

// add adds one VIP. One that is there already, on a device that was down, is as
// it should be; one whose local route is gone is taken away and added again,
// with which the kernel makes the route.
func (h *Host) add(link netlink.Link, addr netip.Addr) error {
	a := address(addr)
	if addr.Is4() {
		a.Scope = unix.RT_SCOPE_HOST
	} else {
		// Without duplicate detection it is usable at once; there is
		// nobody to ask on a dummy device. The route to it is in the
		// local table, one more in the main table would serve nobody.
		a.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		// A preferred lifetime of 0 makes it deprecated.
		a.ValidLft, a.PreferedLft = math.MaxUint32, 0
	}
	err := h.handle.AddrAdd(link, a)
	switch {
	case errors.Is(err, unix.EEXIST):
		local, err := h.local()
		if err != nil || local[addr] {
			return err
		}
		if err := h.handle.AddrDel(link, address(addr)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return explain(err)
		}
		return explain(h.handle.AddrAdd(link, a))
	case addr.Is6() && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)):
		return fmt.Errorf("this kernel has no IPv6, or was booted with ipv6.disable=1: %w", err)
	case addr.Is6() && errors.Is(err, unix.EACCES):
		// addrconf.c, addrconf_add_dev; without CAP_NET_ADMIN it is
		// EPERM.
		return fmt.Errorf("IPv6 is disabled on the device; set net.ipv6.conf.%s.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 to 0: %w", Device, err)
	}
	return explain(err)
}

// remove removes one VIP. One that is gone is as it should be.
func (h *Host) remove(link netlink.Link, addr netip.Addr) error {
	err := h.handle.AddrDel(link, address(addr))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return explain(err)
}

func address(addr netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{
		IP:   addr.AsSlice(),
		Mask: net.CIDRMask(addr.BitLen(), addr.BitLen()),
	}}
}

// explain adds to EPERM what is missing.
func explain(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("not permitted; run as root, or with CAP_NET_ADMIN: %w", err)
	}
	return err
}
