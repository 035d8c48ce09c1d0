package l4

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openInNamespace moves the test into a network namespace of its own and opens
// its IPVS table. The thread is locked and never unlocked, so that it ends with
// the test's goroutine: a thread in a foreign namespace must not serve another
// goroutine. Subtests run in goroutines of their own and have to call it
// themselves.
//
// Without IPVS or the rights to it the test is skipped, or fails where
// LAB_REQUIRED=1 says that it has to run.
func openInNamespace(t *testing.T) *Kernel {
	t.Helper()
	lacking := t.Skipf
	if os.Getenv("LAB_REQUIRED") == "1" {
		lacking = t.Fatalf
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		lacking("making a network namespace: %v", err)
	}
	// As long as no device was up, a namespace has no routing tables and the
	// kernel takes every IPv4 destination for a broadcast address.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	k, err := Open()
	if err != nil {
		lacking("%v", err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// run runs a command in the test's namespace and returns what it printed.
func run(t *testing.T, command string) string {
	t.Helper()
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// procIPVS is the table as the kernel prints it, without its headings. The
// destinations are in list order; the services, whose order is that of a hash
// which differs from one namespace to the next, are sorted.
func procIPVS(t *testing.T) string {
	t.Helper()
	// /proc/net would be the namespace of the process's first thread.
	b, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(line, "IP Virtual Server"), strings.HasPrefix(line, "Prot "), strings.HasPrefix(line, "  -> RemoteAddress"):
		case strings.HasPrefix(line, "  -> "):
			services[len(services)-1] += line
		default:
			services = append(services, line)
		}
	}
	slices.Sort(services)
	return strings.Join(services, "")
}

// apply lists, compares and applies, and fails the test unless every operation
// succeeds. It returns the operations in words.
func apply(t *testing.T, k *Kernel, wanted Table) []string {
	t.Helper()
	listed, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	ops := Diff(listed, wanted)
	applied, err := k.Apply(ops)
	if err != nil {
		t.Fatal(err)
	}
	if applied != len(ops) {
		t.Fatalf("%d of %d operations applied", applied, len(ops))
	}
	return sentences(ops)
}
