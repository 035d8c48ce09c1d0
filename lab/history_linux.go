package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"lb4d/control"
)

// maxHold is how long an LB4 host is held: a third of the lab's hold time, so
// that its keep-alives are late and not missing.
const maxHold = 2 * time.Second

// history drains, kills and restarts LB7 hosts at random, while LB4 hosts are
// held at random, so that no two of them see the same. When all are back, every LB4 host must have the same table, and one of them is
// disabled: then its flows meet the others' tables.
func (b *bout) history(ctx context.Context, t *Trial, length int) (mercy, error) {
	m := mercy{lost: make(map[string]bool), from: time.Now()}
	past := past{bout: b, out: make(map[string]deed), lost: m.lost}
	for range length {
		if err := past.step(ctx); err != nil {
			return m, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(past.out)) {
		if err := past.bringBack(name); err != nil {
			return m, err
		}
	}
	for _, h := range b.Topology.ByRole(RoleLB7) {
		wait, cancel := context.WithTimeout(ctx, waitForEvent)
		_, err := b.weights(h, func(w int) bool { return w > 0 })(wait)
		cancel()
		if err != nil {
			return m, err
		}
	}
	// New requests had nowhere to go for as long as it lasted.
	m.newFor = time.Since(m.from)

	difference, err := b.difference(ctx)
	if err != nil {
		return m, err
	}
	if difference == "" {
		t.note("every LB4 has the same table")
	} else {
		t.note("the LB4s' tables differ: %s", difference)
		t.fail("the LB4 hosts' tables differ")
	}
	t.note("lost with their LB7: flows of %s", strings.Join(slices.Sorted(maps.Keys(m.lost)), ", "))
	_, err = b.disabled(ctx, t)
	return m, err
}

// past is a history under way.
type past struct {
	*bout
	out  map[string]deed // how to bring back what is out, by LB7 host
	lost map[string]bool // LB7 hosts that lost their flows
}

// step is one event of the history. Only every second LB7 host ever fails, so
// that there are flows left to be kept.
func (p *past) step(ctx context.Context) error {
	lb7s := p.Topology.ByRole(RoleLB7)
	i := p.rng.IntN(len(lb7s))
	h, mayFail := lb7s[i], i%2 == 0
	release, err := p.hold()
	if err != nil {
		return err
	}
	_, isOut := p.out[h.Name]
	switch kind := p.rng.IntN(3); {
	case isOut:
		err = p.bringBack(h.Name)
	case kind == 0 || !mayFail:
		p.out[h.Name] = p.undrainDeed(h)
		err = p.tellAndDo(p.drainDeed(h))
	case kind == 1:
		p.lost[h.Name] = true
		p.out[h.Name] = p.reviveDeed(h)
		err = p.tellAndDo(p.killDeed(h))
	default:
		p.lost[h.Name] = true
		p.tell("%s: HAProxy restarted", h.Name)
		err = p.Restart(h.Name, "haproxy")
	}
	// From less than one check to more than purge_after.
	wait := time.Duration(500+p.rng.IntN(6000)) * time.Millisecond
	held := min(wait, maxHold)
	return errors.Join(err, pause(ctx, held), release(), pause(ctx, wait-held))
}

// tellAndDo does the first half of a deed: nobody waits for what comes of it.
func (p *past) tellAndDo(d deed) error {
	p.tell("%s", d.told)
	return d.do()
}

func (p *past) bringBack(name string) error {
	d := p.out[name]
	delete(p.out, name)
	return p.tellAndDo(d)
}

// hold stops some of the LB4 hosts, so that they miss what comes: for a while
// that is shorter than the hold time of their BGP sessions. The returned function
// ends that.
func (p *past) hold() (release func() error, err error) {
	process := p.Topology.balancers()[0]
	var stopped []string
	var errs []error
	for _, h := range p.Topology.ByRole(RoleLB4) {
		if p.rng.IntN(2) == 0 {
			stopped = append(stopped, h.Name)
			errs = append(errs, p.signalAll(h.Name, process, syscall.SIGSTOP))
		}
	}
	if len(stopped) > 0 {
		p.tell("%s on %s held", process, strings.Join(stopped, ", "))
	}
	return func() error {
		var errs []error
		for _, name := range stopped {
			errs = append(errs, p.signalAll(name, process, syscall.SIGCONT))
		}
		return errors.Join(errs...)
	}, errors.Join(errs...)
}

// difference waits until all LB4 hosts have the same table, as long as for any
// other event, and returns one in which they differ: by the fingerprints that
// lb4d shows, or by a look at the kernel's lists.
func (b *bout) difference(ctx context.Context) (string, error) {
	look := b.lists
	if b.Topology.Balancer == LB4D {
		look = b.fingerprints
	}
	for end := time.Now().Add(waitForEvent); ; {
		var first []string
		difference := ""
		for i, h := range b.Topology.ByRole(RoleLB4) {
			lines, err := look(ctx, h.Name)
			if err != nil {
				return "", err
			}
			if len(lines) == 0 {
				difference = h.Name + " has none"
			}
			if i == 0 {
				first = lines
				continue
			}
			for n := range max(len(lines), len(first)) {
				if a, b := lineAt(first, n), lineAt(lines, n); a != b {
					difference = fmt.Sprintf("%q on the first, %q on %s", a, b, h.Name)
					break
				}
			}
		}
		if difference == "" || time.Now().After(end) {
			return difference, nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// lineAt is a line, or nothing where there are fewer.
func lineAt(lines []string, n int) string {
	if n < len(lines) {
		return lines[n]
	}
	return ""
}

// fingerprints are what lb4d shows of its tables, one service a line; empty
// where it cannot tell.
func (l *Lab) fingerprints(ctx context.Context, host string) ([]string, error) {
	out, err := l.Exec(ctx, host, "lbctl", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var st control.Status
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, fmt.Errorf("reading the status of %s: %w", host, err)
	}
	var lines []string
	for _, s := range st.Services {
		for _, t := range s.Tables {
			if t.Fingerprint == "" {
				return nil, nil
			}
			lines = append(lines, t.Service()+" "+t.Fingerprint)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// lists are the kernel's destinations in their order with their weights: what
// the Maglev table is made of.
func (l *Lab) lists(_ context.Context, host string) ([]string, error) {
	table, err := l.IPVS(host)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, d := range table {
		lines = append(lines, fmt.Sprintf("%v %v %d", d.VIP, d.Member, d.Weight))
	}
	// By service; within one the order stays.
	slices.SortStableFunc(lines, func(a, b string) int {
		vipA, _, _ := strings.Cut(a, " ")
		vipB, _, _ := strings.Cut(b, " ")
		return strings.Compare(vipA, vipB)
	})
	return lines, nil
}

// readNet reads a file below /proc/net as a host sees it.
func (l *Lab) readNet(host, name string) (text string, err error) {
	p, err := l.place(host)
	if err != nil {
		return "", err
	}
	err = p.do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/" + name)
		text = string(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading /proc/net/%s on %s: %w", name, host, err)
	}
	return text, nil
}
