package l4

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
)

func TestKernelErrors(t *testing.T) {
	k := openInNamespace(t)
	a, b := up("192.0.2.139", 1), up("192.0.2.140", 1)
	broken := with(www(a), func(s *Service) { s.Port, s.Scheduler = 81, "nonesuch" })
	multicast := up("224.0.0.1", 1)
	applied, err := k.Apply(Diff(nil, Table{www(multicast, a), broken}))
	if applied != 3 {
		t.Errorf("%d operations applied, want the 3 that can be", applied)
	}
	want := `applying "add destination 198.51.100.1:80/tcp -> 224.0.0.1:80 weight 1 ipip": ` +
		`the kernel wants a unicast address, and no sync daemon where it is of another family than the VIP: netlink receive: invalid argument` + "\n" +
		`applying "add service 198.51.100.1:81/tcp scheduler nonesuch flags mh-fallback,mh-port": ` +
		`this kernel has no scheduler nonesuch; load it with "modprobe ip_vs_nonesuch": netlink receive: no such file or directory`
	if diff := cmp.Diff(want, message(err)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}

	// The table changes under our feet: what is gone need not be deleted,
	// the rest says so.
	listed, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	ops := Diff(listed, Table{www(with(b, func(d *Destination) { d.Weight = 2 }))})
	ops = append(ops, EditDestination{Key: www().Key, Destination: b, Was: b}, DeleteService{Key: www().Key})
	nstest.Run(t, "ipvsadm -C")
	applied, err = k.Apply(ops)
	if applied != 2 {
		t.Errorf("%d operations applied, want the 2 deletions", applied)
	}
	if got := strings.Count(message(err), "the service is gone; does another program write to IPVS?"); got != 2 {
		t.Errorf("error: %v; want two lines on the service that is gone", err)
	}
}

// Every message of a batch may fail, and each failure is that of its operation.
func TestKernelManyErrors(t *testing.T) {
	k := openInNamespace(t)
	gone := large(1, 120)[0]
	var ops []Op
	for i, d := range gone.Destinations {
		if i == 60 {
			ops = append(ops, AddService{Key: www6().Key, Scheduler: "rr"})
		}
		ops = append(ops, EditDestination{Key: gone.Key, Destination: d, Was: d})
	}
	applied, err := k.Apply(ops)
	lines := strings.Split(message(err), "\n")
	if applied != 1 || len(lines) != 21 || lines[20] != "and 100 operations more that failed" {
		t.Errorf("applied %d, want the one that can be; the error has %d lines: %s", applied, len(lines), lines[len(lines)-1])
	}
	if !strings.Contains(lines[0], "192.0.2.1:80") || !strings.Contains(lines[19], "192.0.2.20:80") {
		t.Errorf("the failures are told of others: %s\n%s", lines[0], lines[19])
	}
	if listed, err := k.List(); err != nil || len(listed) != 1 {
		t.Errorf("listed %s%v, want the service that was added", text(listed), err)
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	openInNamespace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	k, err := Open()
	if k != nil || !errors.Is(err, os.ErrPermission) || !strings.Contains(message(err), "CAP_NET_ADMIN") {
		t.Errorf("error: %v; want one that names CAP_NET_ADMIN", err)
	}
}
