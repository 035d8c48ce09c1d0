package bgp

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// isolated is set in the environment of a test binary that has a network
// namespace for itself.
const isolated = "BGP_TEST_ISOLATED"

// TestMain moves the tests into a network namespace of their own where it
// may. There they know every interface and address, and may add some.
func TestMain(m *testing.M) {
	if os.Getenv(asSpeaker) != "" {
		speak()
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(isolated) == "" {
		// A kernel with IPv6 as a module loads it for the first socket.
		if conn, err := net.ListenPacket("udp6", "[::1]:0"); err == nil {
			_ = conn.Close()
		}
		runtime.LockOSThread() // the child dies with the thread that made it
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), isolated+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "testing in a network namespace:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "setting the loopback interface up:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
