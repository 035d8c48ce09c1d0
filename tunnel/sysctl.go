package tunnel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Sysctl is one kernel setting that must have a value.
type Sysctl struct {
	Key   string // net.ipv4.vs.sloppy_tcp
	Value string
	Why   string // one clause for the log and the docs
	// Optional tells that a kernel without the key will do.
	Optional bool
}

// SysctlChange tells of a sysctl that was set.
type SysctlChange struct {
	Sysctl
	Was string
}

// String is "net.ipv4.vs.sloppy_tcp = 1 (was 0)".
func (c SysctlChange) String() string {
	return fmt.Sprintf("%s = %s (was %s)", c.Key, c.Value, c.Was)
}

// LB4Sysctls are what an LB4 needs. The keys of net.ipv4.vs exist as soon as
// the kernel has IPVS loaded, so open IPVS first. They hold for IPv6 as well.
//
// Each was tried out with and without (sysctl_linux_test.go). These are needed
// by nothing that an LB4 does, and are therefore left as they are:
//
//   - net.ipv4.ip_forward and net.ipv6.conf.all.forwarding: IPVS takes a packet
//     that is for a local address and sends it, encapsulated, as the host's own.
//     Nothing is routed, so an LB4 need not be a router.
//   - rp_filter: a packet from a user comes in by the device that the route to
//     the user goes out by, and the answer does not pass here. Strict filtering
//     is fine, except where the two differ: there it has to be 2 (RFC 3704). The
//     answers to checks through the tunnel do come in by another device than the
//     way to the VIP, which is local, goes out by; ProbePath sees to those.
//   - net.ipv4.vs.pmtu_disc: its default of 1 answers "fragmentation needed" for
//     an IPv4 packet that is too large for the path with the outer header on it,
//     as a router does, and the user's host sends smaller ones; IPv6 is always
//     treated so. 0 would have such packets fragmented, which also serves users
//     whose firewall drops the answer, and costs the LB7 two packets and a
//     reassembly for each full one. Better than either is an underlay that
//     carries 20 bytes more (40 for IPv6), or a smaller advmss at the LB7, so
//     that such packets never come. So it is the operator's to choose. Where the
//     underlay gets narrower behind a router, IPVS learns of it for IPv4 tunnels
//     alone (ip_vs_core.c, ip_vs_in_icmp has no counterpart for IPv6): an ip6ip6
//     tunnel then needs that advmss, or a route to the LB7 that has its mtu.
//   - net.ipv4.vs.expire_quiescent_template: it is about persistence, which
//     services here do not have.
//   - net.ipv4.vs.conntrack: its default of 0 is right, since flows arrive in
//     the middle.
func LB4Sysctls() []Sysctl {
	return []Sysctl{
		{
			// ip_vs_proto_tcp.c, tcp_conn_schedule. When the routers spread
			// flows anew, each goes on through an LB4 that never saw its
			// SYN. By default IPVS then leaves the packet to the host, which
			// resets the flow. A packet with RST is never scheduled.
			Key: "net.ipv4.vs.sloppy_tcp", Value: "1",
			Why: "a flow that arrives in the middle, after a change of routes, is forwarded rather than reset",
		},
		{
			// ip_vs_core.c, ip_vs_in_icmp. The router that reports an error
			// is not the user, so its report may come in by another LB4 than
			// the flow. IPVS then schedules by the packet that is quoted in
			// it, which leads to the LB7 that has the flow.
			Key: "net.ipv4.vs.schedule_icmp", Value: "1",
			Why: "an ICMP error, such as fragmentation needed, finds the LB7 of a flow that another LB4 forwards",
		},
		{
			// Documentation/networking/ipvs-sysctl.rst, expire_nodest_conn.
			// It also lets a new flow on the port of one that is in the
			// table leave a destination of weight 0.
			Key: "net.ipv4.vs.expire_nodest_conn", Value: "1",
			Why: "a flow whose destination was deleted is scheduled anew, and reset there, rather than met with silence",
		},
		{
			// Documentation/networking/ipvs-sysctl.rst, conn_reuse_mode. The
			// default of 1 only looks for TIME_WAIT, which IPVS never sees
			// where answers go straight back: its last state is FIN_WAIT,
			// for two minutes. A new flow on the same port would follow the
			// old one, also to where the Maglev table no longer points, and
			// would break when another LB4 takes over. Linux 4.1 has it.
			Key: "net.ipv4.vs.conn_reuse_mode", Value: "2", Optional: true,
			Why: "a new flow on a port used shortly before is scheduled like any other, so that every LB4 agrees on it",
		},
	}
}

// CounterSysctls are what the counters of IPVS need, by which a drain is measured.
// With 0 they stand still for whoever asks, and traffic looks like none. Linux
// 5.17 has the key; before that they always count.
func CounterSysctls() []Sysctl {
	return []Sysctl{{
		Key: "net.ipv4.vs.run_estimation", Value: "1", Optional: true,
		Why: "the counters of IPVS go on counting, so that a drain sees whether packets still come",
	}}
}

// procSys is where the kernel has its settings. Those under net are the ones of
// the calling thread's network namespace.
const procSys = "/proc/sys"

// ReadSysctls returns the present values of the given keys, without those that
// this kernel does not have. The error joins one line for each key that cannot
// be read.
func ReadSysctls(wanted []Sysctl) (map[string]string, error) {
	present, _, err := readSysctls(procSys, wanted)
	return present, err
}

// DiffSysctls returns what has to be set, given the present values. A key
// without a present value is left out.
func DiffSysctls(present map[string]string, wanted []Sysctl) []SysctlChange {
	var changes []SysctlChange
	for _, w := range wanted {
		if was, ok := present[w.Key]; ok && was != w.Value {
			changes = append(changes, SysctlChange{Sysctl: w, Was: was})
		}
	}
	return changes
}

// ApplySysctls sets what differs and returns what it set. Root may do so, and
// any user with CAP_NET_ADMIN (net/sysctl_net.c, net_ctl_permissions).
//
// A failure does not keep the others from being set; the error joins one line
// for each, which says what to do. A key that this kernel does not have is a
// failure unless it is optional.
func ApplySysctls(wanted []Sysctl) ([]SysctlChange, error) {
	return applySysctls(procSys, wanted)
}

// readSysctls returns the present values, and the keys that do not exist.
func readSysctls(root string, wanted []Sysctl) (present map[string]string, missing []Sysctl, err error) {
	present = make(map[string]string, len(wanted))
	var errs []error
	for _, w := range wanted {
		value, err := readSysctl(root, w.Key)
		switch {
		case err == nil:
			present[w.Key] = value
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, w)
		default:
			errs = append(errs, fmt.Errorf("reading %s: %w", w.Key, err))
		}
	}
	return present, missing, errors.Join(errs...)
}

func applySysctls(root string, wanted []Sysctl) ([]SysctlChange, error) {
	present, missing, err := readSysctls(root, wanted)
	errs := []error{err}
	for _, m := range missing {
		if !m.Optional {
			errs = append(errs, fmt.Errorf("setting %s to %s: this kernel does not have it; is its module loaded?", m.Key, m.Value))
		}
	}
	var done []SysctlChange
	for _, c := range DiffSysctls(present, wanted) {
		if err := writeSysctl(root, c); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, c)
	}
	return done, errors.Join(errs...)
}

// path is where a key is. As with sysctl(8), a device's name that has a dot is
// written with a slash in its place.
func path(root, key string) string {
	return filepath.Join(root, strings.NewReplacer(".", "/", "/", ".").Replace(key))
}

// readSysctl returns a value with runs of blanks made one, as some keys have
// several numbers separated by tabs.
func readSysctl(root, key string) (string, error) {
	b, err := os.ReadFile(path(root, key))
	return strings.Join(strings.Fields(string(b)), " "), err
}

// writeSysctl sets a value and reads it back, since some keys of IPVS quietly
// keep the old one when they do not like the new (ip_vs_ctl.c,
// proc_do_defense_mode).
func writeSysctl(root string, c SysctlChange) error {
	// Never create a file: in /proc that is impossible, and elsewhere wrong.
	f, err := os.OpenFile(path(root, c.Key), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(c.Value + "\n")
		err = errors.Join(err, f.Close())
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf(`setting %s: /proc/sys is read-only here, as in a container; run "sysctl -w %s=%s" outside: %w`, c, c.Key, c.Value, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf(`setting %s: not permitted; run as root, or with CAP_NET_ADMIN, or set it beforehand with "sysctl -w %s=%s": %w`, c, c.Key, c.Value, err)
	case err != nil:
		return fmt.Errorf("setting %s: %w", c, err)
	}
	now, err := readSysctl(root, c.Key)
	if err != nil {
		return fmt.Errorf("reading %s back: %w", c.Key, err)
	}
	if now != c.Value {
		return fmt.Errorf("setting %s: the kernel left it at %s", c, now)
	}
	return nil
}
