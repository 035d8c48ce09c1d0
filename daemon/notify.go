package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reloading is the message that a reload has begun. The service manager wants
// the time with it, so that it can tell the READY=1 that ends this reload from
// an earlier one, sd_notify(3).
func reloading() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", ts.Nano()/1000)
}
