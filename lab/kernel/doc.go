// Package kernel gives the lab, and every test that needs IPVS, a machine to
// run in: isolated network, mounts and processes, on a kernel that has IPVS,
// IPIP and dummy devices.
//
// Where this machine's own kernel has them ([Own] tells), the machine is a set
// of namespaces. Else it is a User-Mode Linux kernel: an ordinary process
// whose root is this machine's own file system, up in half a second where
// nothing else runs. It has one processor; a system call takes 20 µs, and to
// ask for the time is one as well. Both have the same shape, and callers need not
// know which one they got:
//
//	func main() {
//		kernel.Init()            // first; does not return in process 1 of a machine
//		...
//	}
//
//	m, err := kernel.Boot(ctx, kernel.Options{
//		Command: []string{self, "guest"},    // run inside, as root
//		Stdout:  os.Stdout, Stderr: os.Stderr,
//	})
//	conn, err := m.Dial()        // on the host: a stream to the command
//	code, err := m.Wait()        // its exit status
//	m.Close()                    // TERM, five seconds, then all is killed
//
//	l, err := kernel.Listen()    // inside, in the command: accepts what Dial opens
//
// The program that calls Boot is started a second time inside, as process 1:
// it mounts what is missing, raises lo, starts the command, reaps orphans,
// and takes the machine down when the command has ended. Nothing of a machine
// outlives the process that booted it, however that process ends.
//
// What the inside sees: the host's files, writable (a machine is no sandbox);
// its own /proc, /sys, /run (an empty tmpfs, as is each directory named in
// Options.Tmpfs) and network, in which only lo exists. TMPDIR is /run/tmp;
// /tmp stays the host's unless named, because `go test` puts its binaries
// there. Command, environment and working directory are passed through.
//
// [Install] fetches Debian's packages for all this, [TestExec] is the heart
// of a `go test -exec` program.
package kernel
