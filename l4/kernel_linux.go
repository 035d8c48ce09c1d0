package l4

import (
	"errors"
	"fmt"
	"os"

	"github.com/cloudflare/ipvs"
)

// Kernel is the IPVS table of one network namespace: the one that the calling
// thread was in when Open made it. It is meant for one goroutine.
type Kernel struct {
	lister lister
	conn   sender
	nodest holder
	close  []func() error
}

// Open connects to IPVS. The kernel loads its module by itself where it has
// one (the generic netlink family has a module alias), and likewise the module
// of a scheduler when a service first names it; so the caller needs
// CAP_NET_ADMIN, and no right to load modules.
//
// The sysctls under net.ipv4.vs exist once Open has succeeded.
func Open() (*Kernel, error) {
	client, err := ipvs.New()
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf(`opening IPVS: this kernel has no IPVS; load it with "modprobe ip_vs", or boot a kernel that has it: %w`, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening IPVS: %w", explain(err))
	}
	k := &Kernel{lister: client}
	// The library's Client does not have Close, its implementation does.
	if c, ok := client.(interface{ Close() error }); ok {
		k.close = append(k.close, c.Close)
	}
	// Looking up the family is allowed to everybody. This is not.
	if _, err := client.Info(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening IPVS: %w", explain(err)), k.Close())
	}
	w, err := openWire()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening IPVS: %w", explain(err)), k.Close())
	}
	n := openNodest()
	k.conn, k.nodest = w, n
	k.close = append(k.close, w.close, n.close)
	return k, nil
}

// Close closes the netlink sockets. The table stays as it is, and goes on
// forwarding.
func (k *Kernel) Close() error {
	var errs []error
	for _, closer := range k.close {
		if err := closer(); err != nil {
			errs = append(errs, fmt.Errorf("closing IPVS: %w", err))
		}
	}
	k.close = nil
	return errors.Join(errs...)
}
