package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxFile bounds the size of a configuration file. The largest one that the
// other bounds allow is smaller.
const maxFile = 1 << 20

// The defaults, each of them with its reason in reference.toml.
const (
	defaultMaintenanceFile = "/etc/lb/disable"
	defaultStateDir        = "/var/lib/lb"
	defaultSocket          = "/run/lb/lb4d.sock"
	defaultGroup           = "lb"
	defaultHoldTime        = 6 * time.Second
	defaultGracefulRestart = time.Minute
	defaultDrainTime       = 5 * time.Second
	defaultSiblingsSettle  = 30 * time.Second
	defaultPrefixLimit     = 100000
	defaultBFDInterval     = 300 * time.Millisecond
	defaultBFDMultiplier   = 3
	defaultBGPPort         = 179 // RFC 4271 section 8
	defaultPurgeAfter      = 30 * time.Second
	defaultWeight          = 1
	defaultHTTPPort        = 80
	defaultExpectStatus    = 200
	defaultDrainStatus     = 503 // what HAProxy's monitor fail answers
	defaultInterval        = time.Second
	defaultTimeout         = 500 * time.Millisecond
	defaultRise            = 2
	defaultFall            = 3
	defaultMTU             = 1500 // of the Internet
	// defaultGUEPort is the one that IANA has assigned.
	defaultGUEPort = 6080
	// defaultCheckMark has the bits of "LB" above those of the range, and
	// none of 0x4000 and 0x8000, which Kubernetes looks at.
	defaultCheckMark = 0x4c420000
	defaultQuorum    = 1
	defaultScheduler = "mh"
)

// Load reads and validates the file at path and the password files that it
// names. Its error is Faults: one line for each fault, in which nothing of a
// password file's content appears.
func Load(path string) (*Config, error) {
	c := &checker{file: path}
	data, err := read(path, maxFile)
	if err != nil {
		c.fault(place{}, "%s", unreadable(err))
		return nil, c.err()
	}
	if len(data) > maxFile {
		c.fault(place{}, "is larger than %d MiB; a configuration never is, so name the right file with -config", maxFile>>20)
		return nil, c.err()
	}
	return Parse(path, data)
}

// Parse validates a configuration that has been read already. The name is the
// file's, for the faults. Password files are read. The error is Faults.
func Parse(name string, data []byte) (*Config, error) {
	c := &checker{file: name}
	root, ok := c.document(data)
	if !ok {
		return nil, c.err()
	}
	var raw rawFile
	section{&raw}.take(c, root, place{line: 1}, "")
	cfg := c.config(&raw)
	if err := c.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// config validates a whole file.
func (c *checker) config(raw *rawFile) *Config {
	raw.stateDir.value = strings.TrimSuffix(raw.stateDir.value, "/")
	cfg := &Config{
		MaintenanceFile: c.filePath(raw.maintenanceFile, defaultMaintenanceFile, maxPath),
		StateDir:        c.filePath(raw.stateDir, defaultStateDir, maxPath),
		Control: Control{
			Socket: c.filePath(raw.control.socket, defaultSocket, maxSocket),
			Group:  c.group(raw.control.group),
		},
		HTTP:    HTTP{Listen: c.listen(raw.http.listen)},
		Damping: c.damping(&raw.damping),
	}
	var names communityNames
	cfg.BGP, names = c.bgp(raw)
	pools := c.pools(raw)
	cfg.Services = c.services(raw, pools, names)
	c.drainAttributes(&raw.bgp, cfg)
	c.taken(raw, cfg, pools)
	cfg.Pools = pools.sorted()
	cfg.CheckMark = c.marks(raw, pools)
	return cfg
}

// readTimeout bounds the wait for a pipe that is given as configuration.
const readTimeout = 5 * time.Second

// read is the beginning of a file: at most one byte more than most, by which
// the caller knows that it is too large.
func read(path string, most int64) ([]byte, error) {
	// Without O_NONBLOCK a named pipe that nobody writes to would hold the
	// daemon's loop at a reload; with it such a pipe reads as empty.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Regular files know no deadline and need none.
	_ = f.SetReadDeadline(time.Now().Add(readTimeout))
	return io.ReadAll(io.LimitReader(f, most+1))
}

// unreadable says in words why a configuration file cannot be read, and what
// to do.
func unreadable(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist; write it, or name another with -config"
	case errors.Is(err, fs.ErrPermission):
		return "may not be read by this user; give it read permission, as with chgrp lb and chmod g+r"
	case errors.Is(err, syscall.EISDIR):
		return "is a directory; name a file with -config"
	}
	return fmt.Sprintf("cannot be read: %v; mend that, or name another file with -config", cause(err))
}

// cause is the error without the path, which is in the line already.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
