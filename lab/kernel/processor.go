package kernel

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// reserveProcessor finds one of the processors that this thread may use for a
// User-Mode Linux kernel alone, as far as machines of this program are
// concerned, and binds the calling thread, from which the kernel is
// started, to it. Each system call of the guest is a switch between two
// processes of the host that wait for each other; on one processor that is a
// context switch, on two it is two wake-ups of an idle one, which in a virtual
// machine made the guest a fifth to a half slower.
//
// What is returned holds the reservation, nil where none was free: then the
// host's scheduler does what it can. An abstract socket's name is the lock
// since it vanishes with its process.
func reserveProcessor() net.Listener {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil || allowed.Count() < 2 {
		return nil
	}
	// From the last down: interrupts and what was started first tend to be on the first.
	for cpu := len(allowed)*64 - 1; cpu >= 0; cpu-- {
		if !allowed.IsSet(cpu) {
			continue
		}
		lock, err := net.Listen("unix", fmt.Sprintf("@lab-kernel-processor-%d", cpu))
		if err != nil {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) != nil {
			lock.Close()
			return nil
		}
		return lock
	}
	return nil
}
