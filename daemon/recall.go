package daemon

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"lb4d/config"
	"lb4d/tunnel"
)

// What the state file says is carried out as root: addresses and services are
// removed, and sysctls set. The file may come from another version, another
// host's backup or a disk that lies, so nothing in it is taken that this program
// would not have written.

const (
	// maxOwned bounds the VIPs that are taken from the file, as the
	// configuration bounds its own.
	maxOwned = 16384
	// maxFlaps is more failures than any damping counts to.
	maxFlaps = 1 << 16
)

// sift takes out of the file what cannot be this program's, and returns a few
// words for each kind of thing.
func (f *stateFile) sift() (refused []string) {
	refuse := func(what string, all []string) {
		if len(all) > 0 {
			refused = append(refused, what+" "+few(all))
		}
	}
	var vips, keys, marks []string
	take := func(list []netip.Addr) []netip.Addr {
		var good []netip.Addr
		for _, vip := range list {
			if !canBeVIP(vip) || len(good) == maxOwned {
				vips = append(vips, fmt.Sprintf("%.60q", vip.String()))
				continue
			}
			good = append(good, vip)
		}
		// The loop searches them as a sorted list.
		slices.SortFunc(good, netip.Addr.Compare)
		return slices.Compact(good)
	}
	f.VIPs, f.Announced = take(f.VIPs), take(f.Announced)
	f.Sysctls = slices.DeleteFunc(f.Sysctls, func(s savedSysctl) bool {
		bad := !tunnel.ForProbes(tunnel.SysctlChange{Sysctl: tunnel.Sysctl{Key: s.Key, Value: s.Value}, Was: s.Was})
		if bad {
			keys = append(keys, fmt.Sprintf("%.60q", s.Key))
		}
		return bad
	})
	if f.CheckMark > math.MaxUint32-config.CheckMarks+1 {
		marks = append(marks, fmt.Sprint(f.CheckMark))
		f.CheckMark = 0
	}
	f.Flaps = slices.DeleteFunc(f.Flaps, func(s savedFlaps) bool { return !canBeVIP(s.VIP) })
	for i := range f.Flaps {
		f.Flaps[i].Count = min(f.Flaps[i].Count, maxFlaps)
	}
	refuse("VIPs", vips)
	refuse("sysctls", keys)
	refuse("check_mark", marks)
	return refused
}

// siftedError tells what was passed over; the rest of the file holds.
func siftedError(path string, refused []string) error {
	if len(refused) == 0 {
		return nil
	}
	return fmt.Errorf("reading state: %s: passed over what lb4d would not have written: %s; see whether the file is another host's",
		path, strings.Join(refused, "; "))
}

// canBeVIP tells whether an address may be a VIP at all.
func canBeVIP(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}
