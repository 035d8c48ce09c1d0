package l4

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"lb4d/internal/nstest"
)

// counter counts the messages and the sends on their way to the kernel.
type counter struct {
	sender
	messages, sends int
}

func (c *counter) send(batch []netlink.Message) ([]error, error) {
	c.messages += len(batch)
	c.sends++
	return c.sender.send(batch)
}

// TestKernelProgramming makes a large table from nothing, and has ipvsadm do
// the same in the same kernel. Ours may take half the time of that.
func TestKernelProgramming(t *testing.T) {
	const services, destinations, rounds = 100, 50, 3
	k := openInNamespace(t)
	count := &counter{sender: k.conn}
	k.conn = count
	wanted := large(services, destinations)
	ops := Diff(nil, wanted)
	saved := filepath.Join(t.TempDir(), "saved")
	var ours, theirs []time.Duration
	for range rounds {
		*count = counter{sender: count.sender}
		start := time.Now()
		if _, err := k.Apply(ops); err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		if err := os.WriteFile(saved, []byte(nstest.Run(t, "ipvsadm -S -n")), 0o600); err != nil {
			t.Fatal(err)
		}
		nstest.Run(t, "ipvsadm -C")
		theirs = append(theirs, restore(t, saved))
		// What ipvsadm has made is what we would have made, but for the
		// order: it prints sorted, and adds from first to last.
		nstest.Run(t, "ipvsadm -C")
	}
	if want := services * (destinations + 2); count.messages != want {
		t.Errorf("%d messages, want %d", count.messages, want)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	t.Logf("%d services x %d destinations from nothing, median of %d: %v in %d sends; ipvsadm -R: %v",
		services, destinations, rounds, ours[rounds/2].Round(time.Millisecond), count.sends, theirs[rounds/2].Round(time.Millisecond))
	if ours[rounds/2] > theirs[rounds/2]/2 {
		t.Errorf("that is more than half the time: %v, ipvsadm -R %v", ours, theirs)
	}

	apply(t, k, wanted)
	*count = counter{sender: count.sender}
	if ops := apply(t, k, wanted); len(ops) != 0 || count.messages != 0 {
		t.Errorf("nothing changed with %d messages: %q", count.messages, ops)
	}
	for _, change := range []struct {
		what string
		make func(*Destination)
	}{
		{"a weight", func(d *Destination) { d.Weight, d.FullWeight = 2, 2 }},
		{"a drain", func(d *Destination) { d.Weight = 0 }},
		{"the way back", func(d *Destination) { d.Weight = 2 }},
		{"an encapsulation", func(d *Destination) { d.Encapsulation = GRE }},
	} {
		*count = counter{sender: count.sender}
		change.make(&wanted[7].Destinations[3])
		if ops := apply(t, k, wanted); count.messages != 1 || len(ops) != 1 {
			t.Errorf("%s changed with %d messages: %q", change.what, count.messages, ops)
		}
	}
	start := time.Now()
	listed, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	listing := time.Since(start)
	start = time.Now()
	if ops := Diff(listed, wanted); len(ops) != 0 {
		t.Errorf("operations remain: %q", sentences(ops))
	}
	t.Logf("listing it: %v, comparing it: %v", listing.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

// restore has ipvsadm make the table that it saved, and returns how long that
// took.
func restore(t *testing.T, saved string) time.Duration {
	t.Helper()
	in, err := os.Open(saved)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command("ipvsadm", "-R")
	cmd.Stdin = in
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ipvsadm -R: %v\n%s", err, out)
	}
	return time.Since(start)
}
