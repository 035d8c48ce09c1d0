package l4

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

// nodestPath is the sysctl that decides what becomes of a flow whose
// destination was deleted: at 0 its packets are dropped until the destination
// is there again, at 1 the flow ends.
const nodestPath = "/proc/sys/net/ipv4/vs/expire_nodest_conn"

// holder keeps the flows of deleted destinations alive while it holds. A test
// replaces it.
type holder interface {
	hold() error
	release() error
}

// nodest is the sysctl of the namespace that the thread was in when it was
// opened: the open file stays with that.
type nodest struct {
	file *os.File
	err  error  // why it is not open
	was  []byte // what release puts back; nil: not held
}

// openNodest never fails. A table whose order is right needs no hold, so a
// sysctl that cannot be written is only told when it would have to be.
func openNodest() *nodest {
	file, err := os.OpenFile(nodestPath, os.O_RDWR, 0)
	return &nodest{file: file, err: err}
}

func (n *nodest) hold() error {
	if n.err != nil {
		return fmt.Errorf("holding expire_nodest_conn at 0: %w", n.err)
	}
	value := make([]byte, 16)
	count, err := n.file.ReadAt(value, 0)
	if count == 0 {
		return fmt.Errorf("holding expire_nodest_conn at 0: reading it: %w", err)
	}
	if bytes.Equal(bytes.TrimSpace(value[:count]), []byte("0")) {
		return nil
	}
	if _, err := n.file.WriteAt([]byte("0\n"), 0); err != nil {
		return fmt.Errorf("holding expire_nodest_conn at 0: %w", err)
	}
	n.was = value[:count]
	return nil
}

func (n *nodest) release() error {
	if n.was == nil {
		return nil
	}
	if _, err := n.file.WriteAt(n.was, 0); err != nil {
		return fmt.Errorf("setting expire_nodest_conn back to %s: %w", bytes.TrimSpace(n.was), err)
	}
	n.was = nil
	return nil
}

func (n *nodest) close() error {
	if n.file == nil {
		return nil
	}
	return errors.Join(n.release(), n.file.Close())
}
