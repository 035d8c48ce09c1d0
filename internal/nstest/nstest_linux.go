// Package nstest gives a test of the kernel a network namespace of its own.
package nstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Lacking ends a test that the machine cannot run: with a skip, or with a
// failure where LAB_REQUIRED=1 says that it has to run.
func Lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("LAB_REQUIRED") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Enter moves the test into a network namespace of its own, with lo up: as long
// as no device was up, a namespace has no routing tables, and the kernel takes
// every IPv4 destination for a broadcast address.
//
// The thread is locked and never unlocked, so that it ends with the test's
// goroutine: a thread in a foreign namespace must not serve another goroutine.
// Subtests run in goroutines of their own and have to call it themselves.
func Enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		Lacking(t, "making a network namespace: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

// Run runs a command in the test's namespace and returns what it printed.
func Run(t *testing.T, command string) string {
	t.Helper()
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
