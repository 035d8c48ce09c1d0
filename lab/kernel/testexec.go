package kernel

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// TestExec runs a program in a machine of its own and returns its exit status:
// args[0] is its path, the rest its arguments. It is what a program does that
// is given to `go test -exec`: environment, working directory and exit status
// pass through, output comes as it is written, and files named by -test flags
// (a coverage profile, say) are the host's own. When ctx ends the program
// gets TERM and after five seconds all is killed.
//
// Programs built with -race do not run in User-Mode Linux: the detector wants
// more address space than the 512 GiB that a process has there.
func TestExec(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	command := append([]string(nil), args...)
	if len(command) == 0 {
		return -1, fmt.Errorf("running a test binary: none named")
	}
	binary, err := filepath.Abs(command[0])
	if err != nil {
		return -1, fmt.Errorf("running %s: %w", command[0], err)
	}
	command[0] = binary
	m, err := Boot(ctx, Options{Command: command, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return -1, fmt.Errorf("running %s: %w", binary, err)
	}
	return m.Wait()
}
