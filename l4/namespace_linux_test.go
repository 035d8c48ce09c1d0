package l4

import (
	"os"
	"slices"
	"strings"
	"testing"

	"lb4d/internal/nstest"
)

// openInNamespace moves the test into a network namespace of its own and opens
// its IPVS table.
func openInNamespace(t *testing.T) *Kernel {
	t.Helper()
	nstest.Enter(t)
	k, err := Open()
	if err != nil {
		nstest.Lacking(t, "%v", err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
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
