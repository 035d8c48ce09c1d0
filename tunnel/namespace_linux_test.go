package tunnel

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
)

// openInNamespace is nstest.Enter and OpenHost, where the kernel has what a
// Host needs.
func openInNamespace(t *testing.T) *Host {
	t.Helper()
	nstest.Enter(t)
	// IPv6 may be a module, which a first socket loads.
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		nstest.Lacking(t, "this kernel has no IPv6: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	probe := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}
	if err := netlink.LinkAdd(probe); err != nil {
		nstest.Lacking(t, "this kernel has no dummy devices: %v", err)
	}
	if err := netlink.LinkDel(probe); err != nil {
		t.Fatal(err)
	}
	h, err := OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// apply lists, compares and applies, and fails the test unless every operation
// succeeds. It returns the operations in words.
func apply(t *testing.T, h *Host, wanted string) []string {
	t.Helper()
	listed, err := h.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	ops := DiffAddresses(listed, addrs(wanted))
	applied, err := h.ApplyAddresses(ops)
	if err != nil {
		t.Fatal(err)
	}
	if applied != len(ops) {
		t.Fatalf("%d of %d operations applied", applied, len(ops))
	}
	var s []string
	for _, op := range ops {
		s = append(s, op.String())
	}
	return s
}

// only leaves the thread with these capabilities and no others, as the given
// user.
func only(t *testing.T, uid int, capabilities ...uint) {
	t.Helper()
	// The C library would change every thread of the process. These system
	// calls change this one, which ends with the test.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		t.Fatal(errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range capabilities {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}
