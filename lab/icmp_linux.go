package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// fragmentationNeeded disables an LB4 host, and then sends for each download
// the error that a router would, from an address of its own. It goes its own
// way through the routers, so most come to LB4 hosts that have never seen
// the flow. Each LB7 host counts those for a connection that it has.
func (b *bout) fragmentationNeeded(ctx context.Context, t *Trial) (mercy, error) {
	lb4 := b.Topology.ByRole(RoleLB4)[0]
	if _, err := b.carryOut(ctx, b.disableDeed(lb4)); err != nil {
		return mercy{}, err
	}
	// The downloads' next acknowledgements go the new way.
	if err := pause(ctx, between); err != nil {
		return mercy{}, err
	}
	sent, want, err := b.connections()
	if err != nil {
		return mercy{}, err
	}
	before, err := b.outOfWindow()
	if err != nil {
		return mercy{}, err
	}
	if err := b.sendTooBig(sent); err != nil {
		return mercy{}, err
	}
	b.tell("%d ICMP errors sent, one for each connection", len(sent))
	if err := pause(ctx, time.Second); err != nil {
		return mercy{}, err
	}
	after, err := b.outOfWindow()
	if err != nil {
		return mercy{}, err
	}
	found := 0
	for lb7, n := range want {
		got := after[lb7] - before[lb7]
		found += min(got, n)
		if got != n {
			t.fail("%s has %d of the connections, and got %d errors for connections of its own", lb7, n, got)
		}
	}
	t.Found = fmt.Sprintf("%d of %d found", found, len(sent))
	if len(sent) < b.flows {
		t.fail("only %d connections were looked at, of %d downloads", len(sent), b.flows)
	}
	_, err = b.carryOut(ctx, b.enableDeed(lb4))
	return mercy{}, err
}

// connections lists the users' connections, and counts by LB7 host those of
// them that it has.
func (b *bout) connections() (users []connection, held map[string]int, err error) {
	onHost := func(host string) (all []connection, err error) {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := b.readNet(host, name)
			if err != nil {
				return nil, err
			}
			part, err := parseConnections(text)
			if err != nil {
				return nil, err
			}
			all = append(all, part...)
		}
		return all, nil
	}
	open := make(map[connection]string) // by user's end
	for _, h := range b.Topology.ByRole(RoleLB7) {
		all, err := onHost(h.Name)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range all {
			open[connection{c.remote, c.local}] = h.Name
		}
	}
	all, err := onHost("users")
	if err != nil {
		return nil, nil, err
	}
	held = make(map[string]int)
	for _, c := range all {
		// New requests come and go; what ended meanwhile is nobody's.
		if lb7, ok := open[c]; ok && slices.Contains(b.Topology.VIPs, c.remote.Addr()) {
			users = append(users, c)
			held[lb7]++
		}
	}
	return users, held, nil
}

// outOfWindow counts on each LB7 host the ICMP errors that came for a
// connection it has, and with a sequence number that it has not sent
// (tcp_v4_err and tcp_v6_err; one for a connection that it does not have is
// counted elsewhere).
func (b *bout) outOfWindow() (map[string]int, error) {
	counts := make(map[string]int)
	for _, h := range b.Topology.ByRole(RoleLB7) {
		text, err := b.readNet(h.Name, "netstat")
		if err != nil {
			return nil, err
		}
		if counts[h.Name], err = parseCounter(text, "TcpExt", "OutOfWindowIcmps"); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// sendTooBig sends the errors from the internet.
func (b *bout) sendTooBig(all []connection) error {
	p, err := b.place("internet")
	if err != nil {
		return err
	}
	err = p.do(func() error {
		sockets := make(map[bool]int) // by whether the VIP is an IPv6 address
		defer func() {
			for _, fd := range sockets {
				unix.Close(fd)
			}
		}()
		for is6, family := range map[bool][2]int{
			false: {unix.AF_INET, unix.IPPROTO_ICMP}, true: {unix.AF_INET6, unix.IPPROTO_ICMPV6},
		} {
			fd, err := unix.Socket(family[0], unix.SOCK_RAW|unix.SOCK_CLOEXEC, family[1])
			if err != nil {
				return err
			}
			sockets[is6] = fd
		}
		var errs []error
		for _, c := range all {
			vip := c.remote.Addr()
			if err := unix.Sendto(sockets[vip.Is6()], tooBig(c.remote, c.local), 0, rawSockaddr(vip)); err != nil {
				errs = append(errs, fmt.Errorf("to %v: %w", vip, err))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("sending ICMP errors: %w", err)
	}
	return nil
}

func rawSockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}
