package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Decapsulator keeps what an LB7 host needs to take packets for its VIPs out of
// tunnels, in the network namespace that the calling thread was in when
// OpenDecapsulator made it. It is meant for one goroutine, which needs
// CAP_NET_ADMIN and stays in that namespace: sysctls are those of the calling
// thread's.
type Decapsulator struct {
	host      *Host
	stateFile string
	noted     noted
}

// noted is what a teardown has to know beyond what can be seen.
type noted struct {
	// Sysctls are the changes of keys that do not go away with a device of ours,
	// one for each key.
	Sysctls []SysctlChange `json:"sysctls,omitempty"`
	// GUE are the ports that were opened here.
	GUE []gueListener `json:"gue,omitempty"`
	// MSS are the changes to routes.
	MSS []notedMSS `json:"mss,omitempty"`
}

// Applied is what Apply found, and what it did.
type Applied struct {
	// Devices are the tunnel devices that are up, sorted.
	Devices []string
	// MTU is that of the underlay, in bytes.
	MTU int
	// MSS4 and MSS6 are the largest TCP segments that users are asked to send
	// to VIPs of each family, so that they fit the underlay; 0 where there is
	// no such VIP, or KeepRoutes is set.
	MSS4, MSS6 int
	// Unlimited are routes whose advmss cannot be kept, and why, one line each.
	// HAProxy's "mss" on its bind lines does for those.
	Unlimited []string
	// Changes tell what was changed from what, in order, one line each. There
	// are none where everything was as it should be.
	Changes []string
}

// OpenDecapsulator connects to the kernel and changes nothing. What a teardown has
// to set back is kept in stateFile, in a directory that exists.
func OpenDecapsulator(stateFile string) (*Decapsulator, error) {
	d := &Decapsulator{stateFile: stateFile}
	content, err := os.ReadFile(stateFile)
	if err == nil {
		err = json.Unmarshal(content, &d.noted)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what was changed for the tunnels from %s (remove it to begin anew): %w", stateFile, err)
	}
	if d.host, err = OpenHost(); err != nil {
		return nil, err
	}
	return d, nil
}

// Close closes the connection to the kernel. Everything stays as it is, so that
// the host goes on answering.
func (d *Decapsulator) Close() error { return d.host.Close() }

// Apply makes the host equal to want, where it differs, whoever changed it. One
// operation that fails does not keep the others from being tried; the error
// joins one line for each, which says what to do.
func (d *Decapsulator) Apply(want Decapsulation) (Applied, error) {
	var a Applied
	if err := want.Validate(); err != nil {
		return a, err
	}
	u, err := d.look(want)
	if err != nil {
		return a, err
	}
	w, err := want.want(u.local, u.mtu)
	errs := []error{err, u.elsewhere(w.vips)}
	if want.KeepRoutes {
		w.mss4, w.mss6 = 0, 0
	}
	a.MTU, a.MSS4, a.MSS6 = u.mtu, w.mss4, w.mss6
	// Silence first, then what it is for.
	if slices.ContainsFunc(w.vips, netip.Addr.Is4) {
		errs = append(errs, d.quiet(u.underlay, &a.Changes))
	}
	devices, err := d.applyTunnels(u, w, &a.Changes)
	errs = append(errs, err,
		d.applyListeners(w.listeners, &a.Changes),
		d.limitSegments(u, w.mss4, w.mss6, &a),
		d.applyVIPs(u, w.vips, &a.Changes))
	a.Devices = devices
	slices.Sort(a.Devices)
	return a, errors.Join(errs...)
}

// Teardown removes all that Apply made, and nothing else, and sets sysctls back
// that nobody has changed since. The lines say what was done.
func (d *Decapsulator) Teardown() (changes []string, err error) {
	u, err := d.look(Decapsulation{})
	if err != nil {
		return nil, err
	}
	// The VIPs go first: from then on an LB4 is told that they are not here.
	errs := []error{d.removeDevice(&changes)}
	_, err = d.applyTunnels(u, desired{}, &changes)
	errs = append(errs, err, d.applyListeners(nil, &changes))
	var undone Applied
	errs = append(errs, d.limitSegments(u, 0, 0, &undone))
	changes = append(changes, undone.Changes...)
	restored, err := RestoreSysctls(d.noted.Sysctls)
	for _, c := range restored {
		changes = append(changes, "set "+c.String())
	}
	if errs = append(errs, err); errors.Join(errs...) != nil {
		return changes, errors.Join(errs...)
	}
	d.noted = noted{}
	if err := os.Remove(d.stateFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changes, fmt.Errorf("removing what was noted of the tunnels: %w", err)
	}
	return changes, nil
}

// removeDevice removes the VIPs with their device.
func (d *Decapsulator) removeDevice(changes *[]string) error {
	link, err := d.host.device()
	if err != nil || link == nil {
		return err
	}
	if err := d.host.handle.LinkDel(link); err != nil {
		return fmt.Errorf("removing device %s: %w", Device, explain(err))
	}
	*changes = append(*changes, "remove device "+Device)
	return nil
}

func (d *Decapsulator) applyVIPs(u underlay, vips []netip.Addr, changes *[]string) error {
	var listed []netip.Addr
	if link := u.link(Device); link != nil {
		if err := checkDevice(link); err != nil {
			return err
		}
		if link.Attrs().Flags&net.FlagUp != 0 {
			var err error
			if listed, err = d.host.delivered(u.on(link.Attrs().Index)); err != nil {
				return err
			}
		}
	}
	var errs []error
	for _, op := range DiffAddresses(listed, vips) {
		if _, err := d.host.ApplyAddresses([]AddressOp{op}); err != nil {
			errs = append(errs, err)
			continue
		}
		*changes = append(*changes, op.String())
	}
	return errors.Join(errs...)
}

// quiet keeps the underlay's devices from speaking for a VIP. What was changed
// is noted before it is, so that a crash loses nothing.
func (d *Decapsulator) quiet(devices []string, changes *[]string) error {
	keys := decapKeys(devices, nil)
	present, _, err := readSysctls(procSys, keys)
	if err != nil {
		return err
	}
	var needed []Sysctl
	for _, device := range devices {
		if _, ok := present[confKey(device, "arp_ignore")]; ok {
			needed = append(needed, underlaySysctls(device, present)...)
		}
	}
	if len(needed) == 0 {
		return nil
	}
	for _, c := range DiffSysctls(present, needed) {
		i := slices.IndexFunc(d.noted.Sysctls, func(n SysctlChange) bool { return n.Key == c.Key })
		if i < 0 {
			d.noted.Sysctls = append(d.noted.Sysctls, c)
		} else {
			d.noted.Sysctls[i] = c
		}
	}
	if err := d.note(); err != nil {
		return err
	}
	done, err := applySysctls(procSys, needed)
	for _, c := range done {
		*changes = append(*changes, "set "+c.String())
	}
	return err
}

// note writes what a teardown has to know. Devices come and go, and keys of those
// that are gone are forgotten.
func (d *Decapsulator) note() error {
	d.noted.Sysctls = slices.DeleteFunc(d.noted.Sysctls, func(c SysctlChange) bool {
		_, err := os.Stat(path(procSys, c.Key))
		return errors.Is(err, fs.ErrNotExist)
	})
	content, err := json.MarshalIndent(d.noted, "", "  ")
	if err == nil {
		err = renameio.WriteFile(d.stateFile, append(content, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("noting what was changed for the tunnels: %w", err)
	}
	return nil
}

// underlay is what the host has.
type underlay struct {
	tunnels  []foundTunnel
	local    []netip.Addr // that LB4 hosts may send to
	underlay []string     // devices that hear ARP
	mtu      int
	others   map[netip.Addr]string // addresses by device, without those of devices made here
	// links and addresses are what was listed: one listing serves a whole pass
	// as long as nothing was changed in it.
	links     []netlink.Link
	addresses []netlink.Addr
}

// on are the addresses of a device.
func (u underlay) on(index int) []netlink.Addr {
	return slices.DeleteFunc(slices.Clone(u.addresses), func(a netlink.Addr) bool { return a.LinkIndex != index })
}

// link is the device of a name, nil where there was none.
func (u underlay) link(name string) netlink.Link {
	i := slices.IndexFunc(u.links, func(l netlink.Link) bool { return l.Attrs().Name == name })
	if i < 0 {
		return nil
	}
	return u.links[i]
}

// elsewhere tells of VIPs that are on another device as well.
func (u underlay) elsewhere(vips []netip.Addr) error {
	var errs []error
	for _, vip := range vips {
		if device := u.others[vip]; device != "" {
			errs = append(errs, fmt.Errorf("VIP %s is on device %s as well, by which neighbours may find it: remove it there", vip, device))
		}
	}
	return errors.Join(errs...)
}

// look lists the devices and addresses.
func (d *Decapsulator) look(want Decapsulation) (underlay, error) {
	u := underlay{others: make(map[netip.Addr]string)}
	links, err := d.host.handle.LinkList()
	if err != nil {
		return u, fmt.Errorf("listing devices: %w", err)
	}
	addresses, err := d.host.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return u, fmt.Errorf("listing addresses: %w", err)
	}
	u.links, u.addresses = links, addresses
	byIndex := make(map[int]netlink.Link)
	smallest := 0
	least := func(mtu *int, link netlink.Link) {
		if m := link.Attrs().MTU; *mtu == 0 || m < *mtu {
			*mtu = m
		}
	}
	for _, link := range links {
		attrs := link.Attrs()
		byIndex[attrs.Index] = link
		if ours(attrs.Name) {
			u.tunnels = append(u.tunnels, found(link))
		}
		// A port of a bridge hears ARP only for the bridge; a device of a VRF
		// for itself.
		port := attrs.Slave != nil && attrs.Slave.SlaveType() != "vrf"
		if strings.HasPrefix(attrs.Name, devicePrefix) || attrs.Flags&net.FlagLoopback != 0 || attrs.RawFlags&unix.IFF_NOARP != 0 || port {
			continue
		}
		// The kernel makes some by itself that nobody uses (gretap0, erspan0).
		if tap := strings.HasSuffix(link.Type(), "gretap") || strings.HasSuffix(link.Type(), "erspan"); tap && attrs.Flags&net.FlagUp == 0 {
			continue
		}
		u.underlay = append(u.underlay, attrs.Name)
		if attrs.Flags&net.FlagUp != 0 {
			least(&smallest, link)
		}
	}
	for _, l := range addresses {
		link := byIndex[l.LinkIndex]
		addr, ok := netip.AddrFromSlice(l.IP)
		addr = addr.Unmap()
		if !ok || link == nil || link.Attrs().Name == Device || ours(link.Attrs().Name) {
			continue
		}
		u.others[addr] = link.Attrs().Name
		// For IPv4 the flag of "temporary" means a secondary address.
		temporary := addr.Is6() && l.Flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0
		if addr.IsGlobalUnicast() && !temporary {
			u.local = append(u.local, addr)
			if link.Attrs().Flags&net.FlagLoopback == 0 && link.Attrs().Flags&net.FlagUp != 0 &&
				!slices.Contains(want.VIPs, addr) && (len(want.Local) == 0 || slices.Contains(want.Local, addr)) {
				least(&u.mtu, link)
			}
		}
	}
	for _, source := range want.Sources {
		// One that is not reached at the moment says nothing of the MTU.
		if r := d.host.routeTo(source, map[int]netlink.Link{}); r.err == nil && (u.mtu == 0 || r.mtu < u.mtu) {
			u.mtu = r.mtu
		}
	}
	if u.mtu == 0 {
		u.mtu = smallest
	}
	if want.MTU != 0 {
		u.mtu = want.MTU
	}
	return u, nil
}

// Watch returns a channel that gets a value when a device, an address or a route
// has changed, by whomever; several changes may be one value. Of sysctls and GUE
// ports the kernel tells nothing: for them call Apply once a second.
// The channel is closed after ctx has ended.
func (d *Decapsulator) Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watching devices, addresses and routes: %w", err)
	}
	changed := make(chan struct{}, 1)
	context.AfterFunc(ctx, func() { s.Close() })
	go func() {
		defer close(changed)
		for {
			_, _, err := s.Receive()
			// Where messages were lost, something has changed.
			if err != nil && (ctx.Err() != nil || !errors.Is(err, unix.ENOBUFS)) {
				<-ctx.Done()
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, nil
}
