package l4

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/internal/nstest"
)

// Each step applies a table and looks at what the kernel then has, through
// ipvsadm (which sorts, and shows all settings) and /proc/net/ip_vs (which is in
// list order). It is then applied once more, which must change nothing.
func TestKernelSteps(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	const a6, b6 = "2001:db8::c000:28b", "2001:db8::c000:28c"
	k := openInNamespace(t)
	steps := []struct {
		name    string
		wanted  Table
		ipvsadm []string
		proc    []string
	}{
		{name: "nothing"},
		{
			name:   "both families, and an IPv6 VIP over an IPv4 underlay",
			wanted: Table{www(up(a, 1), up(b, 2), draining(c, 3)), www6(up(a6, 1), up(a, 1))},
			ipvsadm: []string{
				"-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port",
				"-a -t 198.51.100.1:80 -r 192.0.2.139:80 -i -w 1 --tun-type ipip",
				"-a -t 198.51.100.1:80 -r 192.0.2.140:80 -i -w 2 --tun-type ipip",
				"-a -t 198.51.100.1:80 -r 192.0.2.141:80 -i -w 0 --tun-type ipip",
				"-A -t [2001:db8::c633:6401]:80 -s mh -b mh-fallback,mh-port",
				"-a -t [2001:db8::c633:6401]:80 -r 192.0.2.139:80 -i -w 1 --tun-type ipip",
				"-a -t [2001:db8::c633:6401]:80 -r [2001:db8::c000:28b]:80 -i -w 1 --tun-type ipip",
			},
			proc: []string{
				"TCP C6336401:0050 mh",
				"-> C000028B:0050 Tunnel 1 0 0",
				"-> C000028C:0050 Tunnel 2 0 0",
				"-> C000028D:0050 Tunnel 0 0 0",
				"TCP [2001:0db8:0000:0000:0000:0000:c633:6401]:0050 mh",
				"-> C000028B:0050 Tunnel 1 0 0",
				"-> [2001:0db8:0000:0000:0000:0000:c000:028b]:0050 Tunnel 1 0 0",
			},
		},
		{
			name:   "a new one in the middle, others draining and leaving",
			wanted: Table{www(draining(a, 1), up(b, 1), draining(c, 0)), www6(up(a6, 4), up(b6, 1), up(a, 1))},
			ipvsadm: []string{
				"-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port",
				"-a -t 198.51.100.1:80 -r 192.0.2.139:80 -i -w 0 --tun-type ipip",
				"-a -t 198.51.100.1:80 -r 192.0.2.140:80 -i -w 1 --tun-type ipip",
				"-a -t 198.51.100.1:80 -r 192.0.2.141:80 -i -w 0 --tun-type ipip",
				"-A -t [2001:db8::c633:6401]:80 -s mh -b mh-fallback,mh-port",
				"-a -t [2001:db8::c633:6401]:80 -r 192.0.2.139:80 -i -w 1 --tun-type ipip",
				"-a -t [2001:db8::c633:6401]:80 -r [2001:db8::c000:28b]:80 -i -w 4 --tun-type ipip",
				"-a -t [2001:db8::c633:6401]:80 -r [2001:db8::c000:28c]:80 -i -w 1 --tun-type ipip",
			},
			proc: []string{
				"TCP C6336401:0050 mh",
				"-> C000028D:0050 Tunnel 0 0 0",
				"-> C000028B:0050 Tunnel 0 0 0",
				"-> C000028C:0050 Tunnel 1 0 0",
				"TCP [2001:0db8:0000:0000:0000:0000:c633:6401]:0050 mh",
				"-> C000028B:0050 Tunnel 1 0 0",
				"-> [2001:0db8:0000:0000:0000:0000:c000:028b]:0050 Tunnel 4 0 0",
				"-> [2001:0db8:0000:0000:0000:0000:c000:028c]:0050 Tunnel 1 0 0",
			},
		},
		{
			name: "every encapsulation in both families",
			wanted: Table{
				www(
					with(up(a, 1), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort }),
					with(draining(b, 2), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort }),
					with(up(c, 1), func(d *Destination) { d.Encapsulation = GRE }),
				),
				www6(
					with(up(a6, 1), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, 6666 }),
					with(up(b6, 1), func(d *Destination) { d.Encapsulation = GRE }),
					with(up(a, 1), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort }),
				),
			},
			ipvsadm: []string{
				"-A -t 198.51.100.1:80 -s mh -b mh-fallback,mh-port",
				"-a -t 198.51.100.1:80 -r 192.0.2.139:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
				"-a -t 198.51.100.1:80 -r 192.0.2.140:80 -i -w 0 --tun-type gue --tun-port 6080 --tun-nocsum",
				"-a -t 198.51.100.1:80 -r 192.0.2.141:80 -i -w 1 --tun-type gre --tun-nocsum",
				"-A -t [2001:db8::c633:6401]:80 -s mh -b mh-fallback,mh-port",
				"-a -t [2001:db8::c633:6401]:80 -r 192.0.2.139:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
				"-a -t [2001:db8::c633:6401]:80 -r [2001:db8::c000:28b]:80 -i -w 1 --tun-type gue --tun-port 6666 --tun-nocsum",
				"-a -t [2001:db8::c633:6401]:80 -r [2001:db8::c000:28c]:80 -i -w 1 --tun-type gre --tun-nocsum",
			},
			proc: []string{
				"TCP C6336401:0050 mh",
				"-> C000028B:0050 Tunnel 1 0 0",
				"-> C000028C:0050 Tunnel 0 0 0",
				"-> C000028D:0050 Tunnel 1 0 0",
				"TCP [2001:0db8:0000:0000:0000:0000:c633:6401]:0050 mh",
				"-> C000028B:0050 Tunnel 1 0 0",
				"-> [2001:0db8:0000:0000:0000:0000:c000:028b]:0050 Tunnel 1 0 0",
				"-> [2001:0db8:0000:0000:0000:0000:c000:028c]:0050 Tunnel 1 0 0",
			},
		},
		{
			name:   "another scheduler, a service less",
			wanted: Table{with(www(up(b, 1)), func(s *Service) { s.Scheduler, s.Flags = "wrr", 0 })},
			ipvsadm: []string{
				"-A -t 198.51.100.1:80 -s wrr",
				"-a -t 198.51.100.1:80 -r 192.0.2.140:80 -i -w 1 --tun-type ipip",
			},
			proc: []string{
				"TCP C6336401:0050 wrr",
				"-> C000028C:0050 Tunnel 1 0 0",
			},
		},
		{name: "nothing again"},
	}
	for _, step := range steps {
		if err := check(t, k, step.wanted, step.ipvsadm, step.proc); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
}

func check(t *testing.T, k *Kernel, wanted Table, ipvsadm, proc []string) error {
	t.Helper()
	apply(t, k, wanted)
	saved, printed := nstest.Run(t, "ipvsadm -S -n"), procIPVS(t)
	if diff := cmp.Diff(lines(strings.Join(ipvsadm, "\n")), lines(saved)); diff != "" {
		return fmt.Errorf("ipvsadm -S -n (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lines(strings.Join(proc, "\n")), lines(printed)); diff != "" {
		return fmt.Errorf("/proc/net/ip_vs (-want +got):\n%s", diff)
	}
	if again := apply(t, k, wanted); len(again) != 0 {
		return fmt.Errorf("the second time these operations were needed: %q", again)
	}
	if diff := cmp.Diff(saved+printed, nstest.Run(t, "ipvsadm -S -n")+procIPVS(t)); diff != "" {
		return fmt.Errorf("the second time changed (-first +second):\n%s", diff)
	}
	return nil
}

// lines splits what a program printed, and makes every run of blanks one.
func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, strings.Join(words, " "))
		}
	}
	return out
}

// What somebody else made is adopted where a service of ours has its name, and
// is not even listed where it cannot be ours.
func TestKernelAdopts(t *testing.T) {
	k := openInNamespace(t)
	nstest.Run(t, "ipvsadm -A -f 7 -s rr")
	nstest.Run(t, "ipvsadm -A -t 198.51.100.1:80 -s wlc -p 60")
	nstest.Run(t, "ipvsadm -a -t 198.51.100.1:80 -r 192.0.2.141:80 -i --tun-type gue --tun-port 6080 --tun-csum")
	nstest.Run(t, "ipvsadm -a -t 198.51.100.1:80 -r 192.0.2.140:80 -i -x 9 -y 3")
	nstest.Run(t, "ipvsadm -a -t 198.51.100.1:80 -r 192.0.2.139:80 -m -w 5")
	listed, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	want := "198.51.100.1:80/tcp scheduler wlc flags persistent\n" +
		"  192.0.2.139:80 weight 5 no tunnel, 0+0 flows\n" +
		"  192.0.2.140:80 weight 1 ipip limited, 0+0 flows\n" +
		"  192.0.2.141:80 weight 1 gue port 6080 checksummed, 0+0 flows\n"
	if diff := cmp.Diff(want, text(listed)); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	wanted := Table{www(up("192.0.2.139", 1), up("192.0.2.140", 1), up("192.0.2.141", 1))}
	for _, op := range apply(t, k, wanted) {
		if !strings.HasPrefix(op, "edit ") {
			t.Errorf("an edit would do, but: %s", op)
		}
	}
	if again := apply(t, k, wanted); len(again) != 0 {
		t.Errorf("operations remain: %q", again)
	}
	wantProc := []string{
		"FWM 00000007 rr",
		"TCP C6336401:0050 mh",
		"-> C000028B:0050 Tunnel 1 0 0",
		"-> C000028C:0050 Tunnel 1 0 0",
		"-> C000028D:0050 Tunnel 1 0 0",
	}
	if diff := cmp.Diff(wantProc, lines(procIPVS(t))); diff != "" {
		t.Errorf("/proc/net/ip_vs (-want +got):\n%s", diff)
	}
	saved := nstest.Run(t, "ipvsadm -S -n") + nstest.Run(t, "ipvsadm -L -n --thresholds")
	for _, gone := range []string{"-p 60", "9          3", "gue", "-m"} {
		if strings.Contains(saved, " "+gone+" ") {
			t.Errorf("%q is still there:\n%s", gone, saved)
		}
	}
}

// What a process notes of slots survives it, and does not survive a change by
// another hand, which may have changed the slots too.
func TestKernelNotesSlots(t *testing.T) {
	k := openInNamespace(t)
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	gue := func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort }
	wanted := Table{www(draining(a, 7), with(draining(b, 65535), gue), draining(c, 0))}
	apply(t, k, wanted)
	next, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if again := apply(t, next, wanted); len(again) != 0 {
		t.Errorf("after a restart these operations were needed: %q", again)
	}
	nstest.Run(t, "ipvsadm -e -t 198.51.100.1:80 -r 192.0.2.139:80 -i -w 0")
	want := []string{"edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 7 ipip (was weight 0 of ? ipip)"}
	if diff := cmp.Diff(want, apply(t, next, wanted)); diff != "" {
		t.Errorf("after an edit by another hand (-want +got):\n%s", diff)
	}
	if again := apply(t, next, wanted); len(again) != 0 {
		t.Errorf("these operations remain: %q", again)
	}
}

// The services of firewall marks are listed to who owns the marks, and to
// nobody else.
func TestKernelMarks(t *testing.T) {
	k := openInNamespace(t)
	nstest.Run(t, "ipvsadm -A -f 99 -s wlc")
	probe := func(addr string) Destination {
		return with(up(addr, 1), func(d *Destination) { d.Port = 0 })
	}
	wanted := Table{
		mark(7, false, probe("192.0.2.139")),
		mark(8, false, with(probe("192.0.2.140"), func(d *Destination) { d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort })),
		mark(8, true, probe("2001:db8::c000:28b")),
		mark(9, true, probe("192.0.2.141")),
	}
	change := func(wanted Table) []string {
		listed, err := k.ListMarks(7, 9)
		if err != nil {
			t.Fatal(err)
		}
		ops := Diff(listed, wanted)
		if applied, err := k.Apply(ops); err != nil || applied != len(ops) {
			t.Fatalf("applied %d of %d: %v", applied, len(ops), err)
		}
		return sentences(ops)
	}
	change(wanted)
	want := []string{
		"-A -f 7 -s rr",
		"-a -f 7 -r 192.0.2.139:0 -i -w 1 --tun-type ipip",
		"-A -f 8 -s rr",
		"-a -f 8 -r 192.0.2.140:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
		"-A -f 8 -6 -s rr",
		"-a -f 8 -6 -r [2001:db8::c000:28b]:0 -i -w 1 --tun-type ipip",
		"-A -f 9 -6 -s rr",
		"-a -f 9 -6 -r 192.0.2.141:0 -i -w 1 --tun-type ipip",
		"-A -f 99 -s wlc",
	}
	if diff := cmp.Diff(want, lines(nstest.Run(t, "ipvsadm -S -n"))); diff != "" {
		t.Errorf("ipvsadm -S -n (-want +got):\n%s", diff)
	}
	if again := change(wanted); len(again) != 0 {
		t.Errorf("the second time these operations were needed: %q", again)
	}
	if listed, err := k.List(); err != nil || len(listed) != 0 {
		t.Errorf("List tells of marks: %s%v", text(listed), err)
	}
	change(nil)
	if diff := cmp.Diff([]string{"-A -f 99 -s wlc"}, lines(nstest.Run(t, "ipvsadm -S -n"))); diff != "" {
		t.Errorf("at the end (-want +got):\n%s", diff)
	}
}

// The kernel's own table must do what the model of the property test does.
func TestKernelConverges(t *testing.T) {
	k := openInNamespace(t)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		wanted := randomTable(r, false)
		before, err := k.List()
		if err != nil {
			t.Fatal(err)
		}
		expected := newModel(before)
		ops := Diff(before, wanted)
		for _, op := range ops {
			if err := expected.apply(op); err != nil {
				t.Fatal(err)
			}
		}
		apply(t, k, wanted)
		after, err := k.List()
		if err != nil {
			t.Fatal(err)
		}
		if again := Diff(after, wanted); len(again) != 0 {
			t.Fatalf("seed %d: operations remain: %q", seed, sentences(again))
		}
		got := newModel(after)
		for _, w := range wanted {
			checkService(t, w, newModel(before).find(w.Key), got.find(w.Key), ops)
		}
		for _, s := range after {
			model := Table{{Key: s.Key, Scheduler: s.Scheduler, Flags: s.Flags}}
			for _, d := range expected.find(s.Key).destinations {
				model[0].Destinations = append(model[0].Destinations, d.Destination)
			}
			if diff := cmp.Diff(text(model), text(Table{s})); diff != "" {
				t.Fatalf("seed %d: list order (-model +kernel):\n%s", seed, diff)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: before\n%swanted\n%s", seed, text(before), text(wanted))
		}
	}
}

// large is a table of the given size, half of it IPv6.
func large(services, destinations int) Table {
	var table Table
	for i := range services {
		s := www()
		network := "192.0.2.%d"
		if i%2 == 1 {
			s, network = www6(), "2001:db8::%d"
		}
		s.Port = uint16(1000 + i)
		for d := range destinations {
			s.Destinations = append(s.Destinations, up(fmt.Sprintf(network, 1+d), 1))
		}
		table = append(table, s)
	}
	return table
}

// A dump of this size comes in many pieces.
func TestKernelLarge(t *testing.T) {
	k := openInNamespace(t)
	wanted := large(50, 13)
	start := time.Now()
	ops := apply(t, k, wanted)
	made := time.Since(start)
	if want := 50 + 50*13 + 50; len(ops) != want {
		t.Errorf("%d operations, want %d", len(ops), want)
	}
	start = time.Now()
	if again := apply(t, k, wanted); len(again) != 0 {
		t.Fatalf("operations remain: %q", again)
	}
	idle := time.Since(start)
	wanted[7].Destinations[3].Weight = 0
	start = time.Now()
	if ops := apply(t, k, wanted); len(ops) != 1 {
		t.Errorf("one weight changed with these operations: %q", ops)
	}
	t.Logf("50 services x 13 destinations: from nothing %v, with nothing to do %v, with one weight changed %v",
		made.Round(time.Millisecond), idle.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	if n := strings.Count(nstest.Run(t, "ipvsadm -S -n"), "\n"); n != len(wanted)*14 {
		t.Errorf("ipvsadm shows %d lines, want %d", n, len(wanted)*14)
	}
	start = time.Now()
	apply(t, k, nil)
	t.Logf("deleted in %v", time.Since(start).Round(time.Millisecond))
}
