package l4

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxBatch bounds how many messages are sent in one go, apart from those of an
// operation that needs more than one, which are never torn apart. The kernel
// carries out a batch within the system call, so even a process that is killed
// leaves no half of an operation behind.
const maxBatch = 50

// maxErrors bounds how many failures Apply tells apart.
const maxErrors = 20

// Apply applies the operations in order and returns how many were. One that
// fails does not keep the others from being tried, except that nothing can be
// done to a service that could not be added, and that nothing at all can be
// done without permission. The error joins one line for each of the first
// failures, and counts the others.
//
// Deleting what is gone is no failure, because then things are as wanted.
//
// While destinations are moved, net.ipv4.vs.expire_nodest_conn is held at 0,
// which keeps their flows alive, and is then put back, also after a failure.
// Deletions wait for that. Where it cannot be held, the moves are not made. A
// process that dies in between leaves it at 0: who wants it at 1 has to see to
// that at the next start.
func (k *Kernel) Apply(ops []Op) (applied int, err error) {
	w := &writer{kernel: k, ops: ops, failures: make([]error, len(ops)), missing: make(map[Key]bool)}
	w.all()
	var errs []error
	failed := 0
	for i, err := range w.failures {
		if err == nil {
			continue
		}
		if failed++; failed <= maxErrors {
			errs = append(errs, fmt.Errorf("applying %q: %w", ops[i], err))
		}
	}
	if failed > maxErrors {
		errs = append(errs, fmt.Errorf("and %d operations more that failed", failed-maxErrors))
	}
	if w.released != nil {
		errs = append(errs, w.released)
	}
	return w.applied, errors.Join(errs...)
}

// writer is one call of Apply.
type writer struct {
	kernel   *Kernel
	ops      []Op
	failures []error // by operation
	applied  int
	missing  map[Key]bool // services that could not be added
	held     bool
	released error // why the hold could not be ended
	refused  bool  // nothing is permitted

	batch []netlink.Message
	owner []int // the operation of each message of the batch
}

func (w *writer) all() {
	defer w.release()
	for i, op := range w.ops {
		if w.refused {
			return
		}
		if w.missing[op.service()] {
			continue
		}
		msgs, err := messages(op)
		if err != nil {
			w.failures[i] = err
			continue
		}
		switch op.(type) {
		case MoveDestination:
			if err := w.hold(); err != nil {
				w.failures[i] = err
				continue
			}
		case DeleteDestination, DeleteService:
			// Their flows are meant to end.
			w.release()
		}
		if len(w.batch)+len(msgs) > maxBatch {
			w.flush()
		}
		for _, m := range msgs {
			w.batch = append(w.batch, m)
			w.owner = append(w.owner, i)
		}
	}
	w.flush()
}

func (w *writer) hold() error {
	if w.held {
		return nil
	}
	w.flush()
	if err := w.kernel.nodest.hold(); err != nil {
		return err
	}
	w.held = true
	return nil
}

func (w *writer) release() {
	if !w.held {
		return
	}
	w.flush()
	w.held = false
	w.released = errors.Join(w.released, w.kernel.nodest.release())
}

// flush sends the batch and takes in the answers.
func (w *writer) flush() {
	batch, owner := w.batch, w.owner
	w.batch, w.owner = nil, nil
	if len(batch) == 0 || w.refused {
		return
	}
	answers, err := w.kernel.conn.send(batch)
	for first := 0; first < len(owner); {
		op := w.ops[owner[first]]
		next, failure := first, err
		for ; next < len(owner) && owner[next] == owner[first]; next++ {
			if err == nil && failure == nil {
				failure = unlessGone(batch[next], answers[next])
			}
		}
		w.note(owner[first], op, failure)
		first = next
	}
}

// note takes in how an operation ended.
func (w *writer) note(i int, op Op, failure error) {
	if w.missing[op.service()] {
		return // told once, for the service
	}
	if failure == nil {
		w.applied++
		return
	}
	if errors.Is(failure, os.ErrPermission) {
		if w.refused {
			return // told once, for all
		}
		w.refused = true
	}
	w.failures[i] = explainOp(op, failure)
	if _, ok := op.(AddService); ok && !errors.Is(failure, unix.EEXIST) {
		w.missing[op.service()] = true
	}
}

// unlessGone takes the errors with which the kernel says that there is no such
// service (ESRCH) or destination (ENOENT) for a success of a deletion.
func unlessGone(m netlink.Message, err error) error {
	deletion := m.Data[0] == cmdDelService || m.Data[0] == cmdDelDest
	if deletion && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)) {
		return nil
	}
	return err
}

// explainOp adds to an errno what it means for the operation (ip_vs_ctl.c,
// ip_vs_genl_set_cmd and what it calls).
func explainOp(op Op, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("it is there already; does another program write to IPVS? %w", err)
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("the service is gone; does another program write to IPVS? %w", err)
	case errors.Is(err, unix.ENOENT):
		scheduler := ""
		switch op := op.(type) {
		case AddService:
			scheduler = op.Scheduler
		case EditService:
			scheduler = op.Scheduler
		default:
			return fmt.Errorf("the destination is gone; does another program write to IPVS? %w", err)
		}
		return fmt.Errorf(`this kernel has no scheduler %s; load it with "modprobe ip_vs_%s": %w`, scheduler, scheduler, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("this kernel has no IPv6, or none in IPVS: %w", err)
	case errors.Is(err, unix.EINVAL):
		if _, ok := op.(AddDestination); ok {
			return fmt.Errorf("the kernel wants a unicast address, and no sync daemon where it is of another family than the VIP: %w", err)
		}
	}
	return explain(err)
}

// explain adds to EPERM what is missing.
func explain(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("not permitted; run as root, or with CAP_NET_ADMIN of the host (that of a container's user namespace does not count): %w", err)
	}
	return err
}
