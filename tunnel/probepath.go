package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// Probe is a check that goes through the tunnel: from this host to the VIP,
// encapsulated to the member, and from the VIP straight back.
type Probe struct {
	Member, VIP netip.Addr
}

// Compare orders by member, then VIP.
func (p Probe) Compare(other Probe) int {
	return cmp.Or(p.Member.Compare(other.Member), p.VIP.Compare(other.VIP))
}

// Way is what the host has for one Probe.
type Way struct {
	// Device is the one that the route to the member goes out by. The answer
	// comes in by it, unless the member's route back is another one.
	Device string
	// MTU is that of the route to the member, in bytes: of its device, or
	// what the host has learnt of the path.
	MTU int
	// Source is the address of the VIP's family that the member answers to.
	// It is never a VIP.
	Source netip.Addr
}

// Path is what the host has, and what it needs, for a set of probes.
type Path struct {
	// Ways has an entry for each probe that is possible, Faults one for each
	// other, with the reason.
	Ways   map[Probe]Way
	Faults map[Probe]error
	// Sysctls are for ApplySysctls. They are worked out from what is set at
	// the moment, so that a host that is configured for it already is left
	// alone; a later call may need more of them or fewer.
	Sysctls []Sysctl
}

// To this host an answer to a probe looks like a forgery: a packet from the
// wire whose source, the VIP, is one of its own addresses. IPv4 drops it twice
// over (fib_frontend.c, __fib_validate_source). IPv6 has no such check in the
// kernel.
const (
	keyAcceptLocal = "accept_local"
	keyRPFilter    = "rp_filter"
	// maxDeviceName is IFNAMSIZ without the final zero, in bytes.
	maxDeviceName = 15
)

func confKey(device, key string) string {
	// In a key, a dot of the device's name is written as a slash.
	name := []byte(device)
	for i, c := range name {
		switch c {
		case '.':
			name[i] = '/'
		case '/':
			name[i] = '.'
		}
	}
	return "net.ipv4.conf." + string(name) + "." + key
}

// probeSysctls are those that the device still needs, given the present values
// of its keys and of those of "all".
func probeSysctls(device string, present map[string]string) []Sysctl {
	var needed []Sysctl
	// A device accepts where it does or "all" does (IN_DEV_ORCONF).
	if key := confKey(device, keyAcceptLocal); present[key] != "1" && present[confKey("all", keyAcceptLocal)] != "1" {
		needed = append(needed, Sysctl{
			Key: key, Value: "1",
			Why: "the answer to a check through the tunnel comes from the VIP, which is an address of this host",
		})
	}
	// The greater of the two values is in force (IN_DEV_MAXCONF): 0 is none,
	// 1 is strict, 2 is loose. So 2 on the device loosens a strict "all" for
	// this device alone.
	key := confKey(device, keyRPFilter)
	if strictest := max(present[key], present[confKey("all", keyRPFilter)]); strictest == "1" {
		needed = append(needed, Sysctl{
			Key: key, Value: "2",
			Why: "the way to the VIP does not go out by the device that the answer to a check comes in by",
		})
	}
	return needed
}

// pathSysctls are those that the devices still need.
func pathSysctls(root string, devices []string) ([]Sysctl, error) {
	var keys []Sysctl
	for _, device := range append([]string{"all"}, devices...) {
		keys = append(keys, Sysctl{Key: confKey(device, keyAcceptLocal)}, Sysctl{Key: confKey(device, keyRPFilter)})
	}
	// A key that is missing belongs to a device that has just gone.
	present, _, err := readSysctls(root, keys)
	if err != nil {
		return nil, err
	}
	var needed []Sysctl
	for _, device := range devices {
		if _, ok := present[confKey(device, keyRPFilter)]; ok {
			needed = append(needed, probeSysctls(device, present)...)
		}
	}
	return needed, nil
}

// ForProbes tells whether a change is one that ProbePath may have asked for: of
// one of its two keys of a device, to and from a value that the key can have. A
// list of changes that was kept in a file is to be asked about before it is set
// back, because a key names a file.
func ForProbes(c SysctlChange) bool {
	rest, ok := strings.CutPrefix(c.Key, "net.ipv4.conf.")
	if !ok {
		return false
	}
	device, filter := strings.CutSuffix(rest, "."+keyRPFilter)
	if !filter {
		if device, ok = strings.CutSuffix(rest, "."+keyAcceptLocal); !ok {
			return false
		}
	}
	// A device's name has no slash (net/core/dev.c, dev_valid_name), so its key
	// has no dot; and one or two dots alone are no name.
	if device == "" || device == "/" || device == "//" || len(device) > maxDeviceName || strings.ContainsAny(device, ".\x00") {
		return false
	}
	value := func(v string) bool { return v == "0" || v == "1" || filter && v == "2" }
	return value(c.Value) && value(c.Was)
}

// RestoreSysctls sets back what was changed, in case nobody has changed it
// since: a key that no longer has the value that was set is left alone, and so
// is one that is gone with its device. Of several changes of one key the last
// counts, as its Was is the last value that was not ours.
//
// It returns what it set. A failure does not keep the others from being set
// back; the error joins one line for each.
func RestoreSysctls(changes []SysctlChange) ([]SysctlChange, error) {
	return restoreSysctls(procSys, changes)
}

func restoreSysctls(root string, changes []SysctlChange) ([]SysctlChange, error) {
	var done []SysctlChange
	var errs []error
	seen := make(map[string]bool)
	for _, c := range slices.Backward(changes) {
		if seen[c.Key] {
			continue
		}
		seen[c.Key] = true
		now, err := readSysctl(root, c.Key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("reading %s: %w", c.Key, err))
			continue
		case now != c.Value:
			continue
		}
		back := SysctlChange{Sysctl: Sysctl{Key: c.Key, Value: c.Was, Why: "as it was found"}, Was: c.Value}
		if err := writeSysctl(root, back); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, back)
	}
	slices.Reverse(done)
	return done, errors.Join(errs...)
}
