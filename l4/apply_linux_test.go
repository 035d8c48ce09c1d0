package l4

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// journal notes what is sent and held, and answers each message as a function
// of its number.
type journal struct {
	lines  []string
	sent   int
	answer func(n int) error
	broken error // what sending fails with
	noHold error
	held   bool
}

var commands = map[byte]string{
	cmdNewService: "new service", cmdSetService: "set service", cmdDelService: "del service",
	cmdNewDest: "new dest", cmdSetDest: "set dest", cmdDelDest: "del dest",
}

func (j *journal) send(batch []netlink.Message) ([]error, error) {
	answers := make([]error, len(batch))
	var line []string
	for i, m := range batch {
		line = append(line, commands[m.Data[0]])
		if j.answer != nil {
			answers[i] = j.answer(j.sent)
		}
		j.sent++
	}
	j.lines = append(j.lines, strings.Join(line, ", "))
	return answers, j.broken
}

func (j *journal) hold() error {
	if j.noHold == nil {
		j.lines, j.held = append(j.lines, "hold"), true
	}
	return j.noHold
}

func (j *journal) release() error {
	j.lines, j.held = append(j.lines, "release"), false
	return nil
}

func (j *journal) apply(ops []Op) (int, error) {
	return (&Kernel{conn: j, nodest: j}).Apply(ops)
}

func TestApplyHoldsFlowsOfMoves(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	ops := Diff(
		Table{www(up(c, 1), up(b, 1)), www6(up(b, 1), up(a, 1))},
		Table{www(draining(a, 1), up(b, 1)), www6(draining(a, 1), up(b, 1))},
	)
	want := []string{
		"new dest, set dest", // a, and its weight set to 0
		"hold",
		"del dest, new dest, set dest",
		"release",
		"del dest",
	}
	j := &journal{}
	if applied, err := j.apply(ops); applied != 3 || err != nil {
		t.Errorf("applied %d: %v; want 3", applied, err)
	}
	if diff := cmp.Diff(want, j.lines); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}

	j = &journal{answer: func(int) error { return unix.ENOMEM }}
	if applied, err := j.apply(ops); applied != 0 || err == nil || j.held {
		t.Errorf("applied %d, held %t: %v; want failures, and nothing held", applied, j.held, err)
	}

	j = &journal{noHold: errors.New("read-only file system")}
	applied, err := j.apply(ops)
	wantErr := `applying "move destination [2001:db8::c633:6401]:80/tcp -> 192.0.2.139:80 to the head,` +
		` weight 0 of 1 ipip (was weight 1 ipip)": read-only file system`
	if applied != 2 || message(err) != wantErr || j.held {
		t.Errorf("applied %d: %v; want 2, and %s", applied, err, wantErr)
	}
	if diff := cmp.Diff([]string{"new dest, set dest", "del dest"}, j.lines); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

func TestApplyBatches(t *testing.T) {
	service := www()
	for i := range 120 {
		service.Destinations = append(service.Destinations, draining(fmt.Sprintf("192.0.2.%d", 1+i), 1))
	}
	j := &journal{}
	applied, err := j.apply(Diff(nil, Table{service}))
	if applied != 122 || err != nil {
		t.Errorf("applied %d: %v; want 122", applied, err)
	}
	sizes := []int{}
	for _, line := range j.lines {
		sizes = append(sizes, 1+strings.Count(line, ", "))
		if strings.HasPrefix(line, "set dest") || strings.HasSuffix(line, "new dest") {
			t.Errorf("a batch tears an operation apart: %s", line)
		}
	}
	if diff := cmp.Diff([]int{49, 50, 50, 50, 43}, sizes); diff != "" {
		t.Errorf("messages in each batch (-want +got):\n%s", diff)
	}
}

func TestApplyStopsWithoutPermission(t *testing.T) {
	j := &journal{answer: func(int) error { return unix.EPERM }}
	service := www()
	for i := range 200 {
		service.Destinations = append(service.Destinations, up(fmt.Sprintf("192.0.2.%d", 1+i), 1))
	}
	applied, err := j.apply(Diff(Table{service}, nil))
	if applied != 0 || len(j.lines) != 1 || !errors.Is(err, os.ErrPermission) {
		t.Errorf("applied %d with %d sends and error %v; want one send that is refused", applied, len(j.lines), err)
	}
	j.lines = nil
	applied, err = j.apply(Diff(nil, Table{service}))
	if applied != 0 || len(j.lines) != 1 || strings.Contains(message(err), "\n") {
		t.Errorf("applied %d with %d sends and error %v; want one send, and one line", applied, len(j.lines), err)
	}
}

func TestApplyBoundsItsError(t *testing.T) {
	j := &journal{answer: func(int) error { return errors.New("out of luck") }}
	var ops []Op
	for range 1000 {
		ops = append(ops, DeleteService{Key: www().Key})
	}
	applied, err := j.apply(ops)
	if applied != 0 || j.sent != 1000 {
		t.Errorf("applied %d with %d messages, want 1000 that fail", applied, j.sent)
	}
	if lines := strings.Split(message(err), "\n"); len(lines) != 21 || lines[20] != "and 980 operations more that failed" {
		t.Errorf("error has %d lines, the last one is %q", len(lines), lines[len(lines)-1])
	}
}

// Where the sending fails, nobody knows what was done: all of it counts as not
// done, and the next pass looks.
func TestApplyWithoutAnswer(t *testing.T) {
	j := &journal{broken: errors.New("no buffer space available")}
	applied, err := j.apply(Diff(nil, Table{mark(7, false, up("192.0.2.139", 1))}))
	want := `applying "add service fwmark 7 scheduler rr": no buffer space available`
	if applied != 0 || message(err) != want {
		t.Errorf("applied %d: %v; want %s", applied, err, want)
	}
}

// An operation that cannot be said to the kernel does not disturb the others.
func TestApplyWithoutEncapsulation(t *testing.T) {
	j := &journal{}
	applied, err := j.apply([]Op{
		AddService{Key: www().Key, Scheduler: "mh"},
		AddDestination{Key: www().Key, Destination: with(up("192.0.2.139", 1), func(d *Destination) { d.Encapsulation = None })},
		AddDestination{Key: www().Key, Destination: up("192.0.2.140", 1)},
	})
	want := `applying "add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 no tunnel": destination 192.0.2.139:80 has no encapsulation`
	if applied != 2 || message(err) != want {
		t.Errorf("applied %d: %v; want 2 and %s", applied, err, want)
	}
}
