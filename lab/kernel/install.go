package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// packages are what every machine needs, whatever runs in it.
var packages = []string{"iproute2", "ipvsadm", "kmod"}

// userModePackage has the kernel for machines whose own will not do, and its
// modules in userModeModules.
const (
	userModePackage = "user-mode-linux"
	userModeModules = "/usr/lib/uml/modules"
)

// installPatience bounds all of Install's waiting for another package manager.
const installPatience = 10 * time.Minute

// Install makes sure that Debian's packages for running machines are there:
// User-Mode Linux where [Own] finds something missing, iproute2, ipvsadm and
// kmod, and those named in more. Where all are it takes some milliseconds and
// uses no network. Daemons in the packages are not started. On a system
// without dpkg it warns and does nothing.
func Install(ctx context.Context, log *slog.Logger, more ...string) error {
	want := slices.Concat(packages, more)
	userMode := Own(ctx) != nil
	if userMode {
		want = append(want, userModePackage)
	}
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		log.Warn("no Debian system: packages are taken for granted", "packages", strings.Join(want, " "))
		return nil
	}
	missing, err := missingPackages(ctx, want)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := requireRoot(); err != nil {
			return fmt.Errorf("installing %s: %w", strings.Join(missing, " "), err)
		}
		log.Info("installing packages", "packages", strings.Join(missing, " "))
		start := time.Now()
		if err := aptInstall(ctx, missing); err != nil {
			return err
		}
		log.Info("installed packages", "took", time.Since(start).Round(time.Second))
	}
	if userMode {
		return linkModules(userModeModules, "/lib/modules")
	}
	return nil
}

// missingPackages tells which of the packages are not installed.
func missingPackages(ctx context.Context, want []string) ([]string, error) {
	args := append([]string{"-W", "-f", "${db:Status-Status} ${Package}\n"}, want...)
	out, err := exec.CommandContext(ctx, "dpkg-query", args...).Output()
	// Status 1 says that some package is unknown; the others are listed all the same.
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return nil, fmt.Errorf("asking for installed packages: %w", err)
	}
	have := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			have[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(want), func(p string) bool { return have[p] }), nil
}

// aptInstall installs packages, with fresh lists where the first try fails,
// which is what a new machine and an old one have in common.
func aptInstall(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, installPatience)
	defer cancel()
	restore, err := denyServices("/usr/sbin/policy-rc.d")
	if err != nil {
		return err
	}
	defer restore()
	install := append([]string{"install", "-y", "--no-install-recommends"}, names...)
	if lists, _ := filepath.Glob("/var/lib/apt/lists/*_Packages*"); len(lists) > 0 {
		if aptGet(ctx, install...) == nil {
			return nil
		}
	}
	if err := aptGet(ctx, "update"); err != nil {
		return err
	}
	return aptGet(ctx, install...)
}

// denyServices keeps packages from starting their daemons by the file that
// Debian's invoke-rc.d asks (its own manual), where the machine has none yet,
// and returns what takes it back.
func denyServices(file string) (restore func(), err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return func() {}, nil
	case err != nil:
		return nil, fmt.Errorf("keeping packages from starting daemons: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString("#!/bin/sh\n# There only while the lab installs packages.\nexit 101\n"); err != nil {
		os.Remove(file)
		return nil, fmt.Errorf("keeping packages from starting daemons: %w", err)
	}
	return func() { os.Remove(file) }, nil
}

// aptGet runs apt-get and waits while another one holds a lock. apt itself
// waits for dpkg's lock only, not for that of the lists.
func aptGet(ctx context.Context, args ...string) error {
	for {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=60"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
		cmd.Stdout, cmd.Stderr = &out, &out
		// INT lets dpkg end the package it is at; KILL would leave it half done.
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = time.Minute
		err := cmd.Run()
		if err == nil {
			return nil
		}
		locked := strings.Contains(out.String(), "Could not get lock") || strings.Contains(out.String(), "Unable to lock")
		if !locked || ctx.Err() != nil {
			return fmt.Errorf("running apt-get %s: %w\n%s", strings.Join(args, " "), err, ending(out.String(), 20))
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// ending returns the last n lines of s.
func ending(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// linkModules shows the guest kernel's modules where modprobe looks for them:
// in /lib/modules under the kernel's own version, in a root that is the host's.
func linkModules(from, to string) error {
	versions, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("finding the modules of User-Mode Linux: %w", err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("linking the modules of User-Mode Linux: %w", err)
	}
	for _, v := range versions {
		target, link := filepath.Join(from, v.Name()), filepath.Join(to, v.Name())
		if _, err := os.Stat(link); err == nil {
			continue
		}
		// A link that leads nowhere is of a version that is gone.
		if _, err := os.Lstat(link); err == nil {
			os.Remove(link)
		}
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking the modules of User-Mode Linux: %w", err)
		}
	}
	return nil
}
