package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// passwordUse is what a password is for.
type passwordUse struct {
	other string // who has the same one
	most  int    // bytes
	by    string // whose bound that is
}

var (
	// TCP_MD5SIG_MAXKEYLEN of linux/tcp.h.
	peerPassword = passwordUse{other: "the peer", most: 80, by: "TCP MD5"}
	// etcd hashes passwords by bcrypt, which takes so much into account.
	etcdPassword = passwordUse{other: "etcd's user", most: 72, by: "etcd"}
)

// password reads a password file. No fault shows any of its content.
func (c *checker) password(t text, use passwordUse) Secret {
	path := c.filePath(t, "", maxPath)
	if path == "" {
		return ""
	}
	data, err := readPassword(path, use.most)
	data = bytes.TrimSuffix(data, []byte("\n"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.fault(t.place, "%s does not exist; write the password that %s has into it", quotePath(path), use.other)
	case errors.Is(err, fs.ErrPermission):
		c.fault(t.place, "%s may not be read by this user; give it read permission, as with chgrp lb and chmod 0640", quotePath(path))
	case errors.Is(err, errNoFile):
		c.fault(t.place, "%s is not a regular file; name one that holds the password", quotePath(path))
	case err != nil:
		c.fault(t.place, "%s cannot be read: %v; mend that, or name another file", quotePath(path), cause(err))
	case len(data) == 0:
		c.fault(t.place, "%s is empty; write the password that %s has into it, or leave the key out", quotePath(path), use.other)
	case len(data) > use.most:
		c.fault(t.place, "%s holds more than %d bytes, which is the most that %s takes; write a shorter password into it", quotePath(path), use.most, use.by)
	case bytes.IndexByte(data, 0) >= 0:
		c.fault(t.place, "%s holds a NUL byte; write the password as text into it", quotePath(path))
	case bytes.HasSuffix(data, []byte("\r")):
		c.fault(t.place, "%s ends with a carriage return, which would be part of the password; save it with a line feed alone", quotePath(path))
	default:
		return Secret(data)
	}
	return ""
}

// errNoFile is a path that leads to a directory, a device or a pipe.
var errNoFile = errors.New("not a regular file")

// readPassword is the beginning of a regular file: enough of it to know
// whether it is too long. It opens nothing else, because opening a pipe waits
// for a writer, and opening a device can do anything.
func readPassword(path string, most int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNoFile
	}
	// The file may have become a pipe since.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(most)+2))
}
