// Package lab is a three-tier load balancer in one machine: users, routers
// that spread flows (BIRD, ECMP), route reflectors, LB4 hosts with lb4d, LB7
// hosts with HAProxy, and servers; each host a set of namespaces of its own,
// all joined by bridges, in IPv4 and IPv6.
//
//	users ── internet ──┬─ R1 ─┬──┬─ LB4-1.. (IPVS, lb4d)
//	                    └─ R2 ─┘  ├─ RR1, RR2 (BGP)
//	                              └─ LB7-1.. (HAProxy) ── S1..
//
// [NewTopology] is pure: from sizes it makes every address, route and
// configuration file. [Up] brings that to life in the kernel it runs in, which
// must have IPVS; the kernel package finds or boots one. [Lab] is then asked
// and acted upon by tests and scenarios. [Serve] and [Do] carry a few verbs
// between a command and a lab that is inside another kernel.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// runDir holds the hosts' own directories and the logs.
	runDir = "/run/lab"
	// settleTimeout bounds the wait for the routes after all was started, and
	// settlePerHost what each host adds to it: a busy machine is slow.
	settleTimeout = 20 * time.Second
	settlePerHost = time.Second
)

// modules are loaded with one call before anything needs them. Left to
// itself the kernel would start modprobe for each.
var modules = []string{"ipv6", "veth", "bridge", "dummy", "ipip", "sit", "ip6_tunnel", "ip_gre", "ip6_gre", "fou", "ip_vs", "ip_vs_mh", "ip_vs_rr"}

// Options say what lab to bring up.
type Options struct {
	Sizes     Sizes     // DefaultSizes where zero
	Reflector Reflector // GoBGP where empty
	Balancer  Balancer  // LB4D where empty
	// Pool is what the LB4 hosts are told of the LB7 hosts at first.
	Pool Pool
	// Bin is where lb4d and other programs are looked for before PATH; the
	// directory of the running program where empty.
	Bin string
	// Progress gets one line for each step; nil discards them.
	Progress io.Writer
	// Elapsed is the time already spent, from which Progress counts.
	Elapsed time.Duration
	// NoDaemon leaves lb4d unstarted and does not wait for routes.
	NoDaemon bool
}

// Lab is a lab that is up. Its methods may be called from any goroutine, but
// none during or after Close.
type Lab struct {
	Topology *Topology

	progress io.Writer
	env      []string
	bin      string
	dir      string
	made     []string // directories that did not exist before, outermost first
	wiring   *wiring
	watch    *routeWatch
	programs map[string][]*program // by host
	servers  map[string][]*served  // by host
}

// Up brings a lab up and returns when every service address is in every
// router's table through every LB4 host. Where that does not come to pass, the
// error says what is missing and what the daemon said last. Only one lab can be
// up in a machine.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if o.Sizes == (Sizes{}) {
		o.Sizes = DefaultSizes
	}
	if o.Reflector == "" {
		o.Reflector = GoBGP
	}
	if o.Balancer == "" {
		o.Balancer = LB4D
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("bringing the lab up: %w", err)
		}
		o.Bin = filepath.Dir(self)
	}
	t, err := NewTopology(o.Sizes, o.Reflector, o.Balancer)
	if err != nil {
		return nil, err
	}
	if err := t.tell(o.Pool); err != nil {
		return nil, err
	}
	l := &Lab{
		Topology: t,
		progress: o.Progress,
		bin:      o.Bin,
		dir:      runDir,
		env:      environment(o.Bin),
		programs: make(map[string][]*program),
		servers:  make(map[string][]*served),
	}
	if err := l.up(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// environment is that of every program in the lab.
func environment(bin string) []string {
	path := bin + ":" + os.Getenv("PATH")
	kept := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	return append(kept, "PATH="+path)
}

func (l *Lab) up(ctx context.Context, o Options) error {
	t := l.Topology
	start := time.Now().Add(-o.Elapsed)
	step := func(format string, args ...any) {
		fmt.Fprintf(l.progress, "%6.2fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	// What is built in or not known fails when it is used, with better words.
	_ = exec.CommandContext(ctx, "modprobe", append([]string{"-aq"}, modules...)...).Run()
	step("kernel modules loaded")
	if err := l.makeDirectories(); err != nil {
		return err
	}
	var err error
	if l.wiring, err = wire(ctx, t, filepath.Join(l.dir, "hosts")); err != nil {
		return err
	}
	if l.watch, err = watchRoutes(l.wiring, t); err != nil {
		return err
	}
	step("%d hosts wired", len(t.Hosts))
	if err := l.startAll(ctx, o.NoDaemon); err != nil {
		return err
	}
	step("programs started")
	if o.NoDaemon {
		return nil
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	step("%d service addresses reach %d routers through %d LB4 hosts", len(t.VIPs), t.Sizes.Routers, t.Sizes.LB4)
	return nil
}

// makeDirectories makes each host's own directories and writes its files. The
// places where they are mounted must exist in the file system that all share.
func (l *Lab) makeDirectories() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("clearing %s: %w", l.dir, err)
	}
	for _, h := range l.Topology.Hosts {
		root := l.hostDir(h.Name)
		for _, d := range h.Directories {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				return fmt.Errorf("making the directories of %s: %w", h.Name, err)
			}
			if err := l.makeMountPoint(d); err != nil {
				return err
			}
		}
		for _, f := range h.Files {
			if err := os.WriteFile(filepath.Join(root, f.Path), []byte(f.Content), 0o644); err != nil {
				return fmt.Errorf("writing the files of %s: %w", h.Name, err)
			}
		}
	}
	return nil
}

// markFile is in each directory that a lab has made to mount on. A lab that
// was killed leaves them, and the next one knows by it what to remove.
const markFile = ".made-by-lab"

// makeMountPoint makes a directory with its parents and keeps in mind which
// were not there before, so that Close leaves none behind.
func (l *Lab) makeMountPoint(path string) error {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(filepath.Join(p, markFile)); err == nil {
			if !slices.Contains(l.made, p) {
				l.made = append(l.made, p)
			}
			break
		}
		if _, err := os.Stat(p); err == nil {
			break
		}
		missing = append(missing, p)
	}
	for _, p := range slices.Backward(missing) {
		if err := os.Mkdir(p, 0o755); err != nil {
			return fmt.Errorf("making a place to mount on: %w", err)
		}
		l.made = append(l.made, p)
		if err := os.WriteFile(filepath.Join(p, markFile), nil, 0o644); err != nil {
			return fmt.Errorf("marking a place to mount on: %w", err)
		}
	}
	return nil
}

// hostDir is where a host's own directories are, seen from outside.
func (l *Lab) hostDir(host string) string { return filepath.Join(l.dir, "hosts", host) }

// startAll starts everything that runs on the hosts, reflectors first, because
// all others call them.
func (l *Lab) startAll(ctx context.Context, noDaemon bool) error {
	for _, role := range []Role{RoleServer, RoleReflector, RoleRouter, RoleLB7, RoleLB4} {
		if noDaemon && role == RoleLB4 {
			continue
		}
		group, _ := errgroup.WithContext(ctx)
		for _, h := range l.Topology.ByRole(role) {
			for _, s := range h.Servers {
				srv := &served{host: h.Name, place: l.wiring.places[h.Name], spec: s, root: l.hostDir(h.Name)}
				l.servers[h.Name] = append(l.servers[h.Name], srv)
				if err := srv.start(); err != nil {
					return err
				}
			}
			for _, spec := range h.Processes {
				p, err := l.program(h, spec)
				if err != nil {
					return err
				}
				group.Go(p.start)
			}
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// program prepares a process of a host.
func (l *Lab) program(h *Host, spec Process) (*program, error) {
	path, err := findProgram(spec.Argv[0], l.bin)
	if err != nil {
		return nil, err
	}
	log, err := openLog(filepath.Join(l.dir, "log", h.Name, spec.Name+".log"))
	if err != nil {
		return nil, err
	}
	p := &program{
		name:  spec.Name,
		place: l.wiring.places[h.Name],
		argv:  append([]string{path}, spec.Argv[1:]...),
		env:   l.env,
		log:   log,
	}
	l.programs[h.Name] = append(l.programs[h.Name], p)
	return p, nil
}

// settle waits until all service addresses are in all routers' tables through
// all LB4 hosts.
func (l *Lab) settle(ctx context.Context) error {
	patience := settleTimeout + time.Duration(len(l.Topology.Hosts))*settlePerHost
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := l.watch.wait(ctx, func(r Routes) bool { return len(l.missing(r)) == 0 })
	if err == nil {
		return nil
	}
	var b strings.Builder
	silent := make(map[string]bool)
	for _, h := range l.Topology.ByRole(RoleRouter) {
		routes, _ := l.watch.routes(h.Name)
		missing := l.missing(routes)
		for _, lb4 := range slices.Sorted(maps.Keys(missing)) {
			what := fmt.Sprint(missing[lb4])
			if len(missing[lb4]) == len(l.Topology.VIPs) {
				what = "any service address"
			}
			fmt.Fprintf(&b, "\n  %s has no route through %s to %s", h.Name, lb4, what)
			silent[lb4] = true
		}
	}
	for _, h := range l.Topology.ByRole(RoleLB4) {
		if silent[h.Name] {
			for _, p := range l.programs[h.Name] {
				fmt.Fprintf(&b, "\n  %s: %s", h.Name, p.lastWords())
			}
		}
	}
	return fmt.Errorf("bringing the lab up: not done after %v: %w%s", patience, err, b.String())
}

// missing lists, by LB4 host, the service addresses that a router does not
// reach through it.
func (l *Lab) missing(r Routes) map[string][]netip.Addr {
	out := make(map[string][]netip.Addr)
	for _, h := range l.Topology.ByRole(RoleLB4) {
		for _, v := range l.Topology.VIPs {
			hop := h.Address
			if v.Is6() {
				hop = h.Address6
			}
			if !slices.Contains(r[v], hop) {
				out[h.Name] = append(out[h.Name], v)
			}
		}
	}
	return out
}

// Close ends everything and leaves no trace in the kernel or the file system.
func (l *Lab) Close() error {
	for _, all := range l.programs {
		for _, p := range all {
			_ = p.signal(syscall.SIGKILL)
		}
	}
	for _, all := range l.programs {
		for _, p := range all {
			p.stop()
			p.log.Close()
		}
	}
	for _, all := range l.servers {
		for _, s := range all {
			s.stop()
		}
	}
	if l.watch != nil {
		l.watch.close()
	}
	if l.wiring != nil {
		l.wiring.close()
	}
	err := os.RemoveAll(l.dir)
	for _, p := range slices.Backward(l.made) {
		_ = os.Remove(filepath.Join(p, markFile))
		_ = os.Remove(p) // Another may have put something there.
	}
	if err != nil {
		return fmt.Errorf("closing the lab: %w", err)
	}
	return nil
}
