// Package tunnel keeps what the host itself must have so that IPVS can do its
// work on an LB4: each VIP as a local address (IPVS takes packets in the
// LOCAL_IN hook, so the kernel must believe that they are for it), and the
// sysctls that IPVS depends on.
package tunnel

// Sysctl is one kernel setting that must have a value.
type Sysctl struct {
	Key   string // net.ipv4.vs.sloppy_tcp
	Value string
	Why   string // one clause for the log and the docs
}

// SysctlChange tells of a sysctl that was set.
type SysctlChange struct {
	Sysctl
	Was string
}
