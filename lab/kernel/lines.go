package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"
)

// The lines between host and machine: byte streams in both directions, serial
// lines in a User-Mode Linux kernel (line N is /dev/ttySN), inherited sockets
// in namespaces (line N is descriptor 3+N).
const (
	lineStreams = iota // yamux: the command's Listen, the host's Dial
	lineStdout
	lineStderr
	lineControl // words, below
	lineCredit  // machine to host: permission to send on lineStreams, see credit.go
	lineCount
)

// What is said on the control line, one word a line: by process 1 first ready
// and at the end exit STATUS or fail REASON, by the host term. An end of file
// tells either side that the other is gone.
const (
	wordReady = "ready"
	wordTerm  = "term"
	wordExit  = "exit"
	wordFail  = "fail"
)

// maxWord bounds a line on the control line.
const maxWord = 64 << 10

// openLines makes the pairs of which the host keeps one end. The host's end
// does not block, so that it can be closed and given deadlines; the
// machine's does, since it is handed to a kernel that polls it in its own way.
func openLines() (host, guest [lineCount]*os.File, err error) {
	for i := range lineCount {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fds[0], true)
		}
		if err != nil {
			closeAll(host[:])
			closeAll(guest[:])
			return host, guest, fmt.Errorf("opening line %d to the machine: %w", i, err)
		}
		host[i] = os.NewFile(uintptr(fds[0]), fmt.Sprintf("line %d (host)", i))
		guest[i] = os.NewFile(uintptr(fds[1]), fmt.Sprintf("line %d (machine)", i))
	}
	return host, guest, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// makeRaw turns a terminal into a plain byte stream: no echo, no signals, no
// rewriting of line ends, reads that return what there is.
func makeRaw(f *os.File) error {
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("reading the terminal settings of %s: %w", f.Name(), err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("making %s raw: %w", f.Name(), err)
	}
	return nil
}

// drain waits until the kernel has passed on what was written to a terminal;
// a power-off would lose it.
func drain(f *os.File) { _ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1) }

// sessionConfig is yamux's for both sides: no pings, since a guest that waits
// for a processor is not dead and the control line's end tells the rest; and
// patience with a line of 0.8 MB/s.
func sessionConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = 2 * time.Minute
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = time.Minute
	c.LogOutput = io.Discard
	return c
}

// readWord reads one line of the control line, bounded.
func readWord(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		part, err := r.ReadSlice('\n')
		b.Write(part)
		switch {
		case err == nil:
			return strings.TrimSuffix(b.String(), "\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", fmt.Errorf("reading the control line: %w", err)
		case b.Len() > maxWord:
			return "", fmt.Errorf("reading the control line: more than %d bytes", maxWord)
		}
	}
}
