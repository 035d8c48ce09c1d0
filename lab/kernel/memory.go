package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryDir finds a directory that can hold the file which backs a User-Mode
// Linux kernel's memory: mebibytes MiB free, mappable for execution (the kernel runs
// code from it), and in memory rather than on disk where there is a choice,
// since the host writes a disk file's pages back all the time. The file is
// sparse and unlinked at once, so it costs what the guest has touched.
func memoryDir(mebibytes int) (string, error) {
	need := uint64(mebibytes) << 20
	var errs []error
	var disk string
	for _, dir := range []string{os.Getenv("TMPDIR"), "/dev/shm", "/run", "/tmp", "/var/tmp"} {
		if dir == "" {
			continue
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
			continue
		}
		free := st.Bavail * uint64(st.Bsize)
		switch {
		case st.Flags&unix.ST_NOEXEC != 0:
			errs = append(errs, fmt.Errorf("%s: mounted noexec", dir))
		case st.Flags&unix.ST_RDONLY != 0:
			errs = append(errs, fmt.Errorf("%s: mounted read-only", dir))
		case free < need:
			errs = append(errs, fmt.Errorf("%s: %d MiB free", dir, free>>20))
		case st.Type == unix.TMPFS_MAGIC:
			return dir, nil
		case disk == "":
			disk = dir
		}
	}
	if disk != "" {
		return disk, nil
	}
	return "", fmt.Errorf("finding room for the guest's memory file of %d MiB (set TMPDIR to a directory that has it): %w",
		mebibytes, errors.Join(errs...))
}
