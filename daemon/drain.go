package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"lb4d/config"
	"lb4d/control"
	"lb4d/plan"
)

const (
	// maxDrains bounds the drains at one time.
	maxDrains = 1024
	// maxReason bounds the reason of a drain, in bytes, so that it fits into
	// a label of a metric.
	maxReason = 200
)

// savedDrain is a drain in the state file.
type savedDrain struct {
	Pool   string    `json:"pool"`
	Member string    `json:"member"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// saved is how drains are written, in an order that does not change.
func saved(drains map[plan.MemberName]plan.Drain) []savedDrain {
	var out []savedDrain
	for name, d := range drains {
		out = append(out, savedDrain{name.Pool, name.Member, d.Reason, d.Since})
	}
	slices.SortFunc(out, func(a, b savedDrain) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Member, b.Member))
	})
	return out
}

// restored is saved read back. A reason that nobody could have given by a
// request is left out; the drain itself stands.
func restored(list []savedDrain) map[plan.MemberName]plan.Drain {
	drains := map[plan.MemberName]plan.Drain{}
	for _, s := range list[:min(len(list), maxDrains)] {
		if fault(s.Reason) != "" {
			s.Reason = ""
		}
		if now := time.Now(); s.Since.After(now) {
			s.Since = now.UTC() // the clock was wrong then
		}
		drains[plan.MemberName{Pool: s.Pool, Member: s.Member}] = plan.Drain{Reason: s.Reason, Since: s.Since}
	}
	return drains
}

// setDrains replaces the drains, on disk first. On an error they are as they
// were.
func (m *memory) setDrains(drains map[plan.MemberName]plan.Drain) error {
	if err := m.save(drains); err != nil {
		return err
	}
	m.drains = drains
	return nil
}

// drained lists the drained members as POOL/NAME.
func (m *memory) drained() []string {
	var names []string
	for _, s := range saved(m.drains) {
		names = append(names, s.Pool+"/"+s.Member)
	}
	return names
}

// dropDrains forgets the drains of members that have left the configuration: a
// member that comes back later under an old name is another one. The next pass
// writes that down.
func (d *Daemon) dropDrains() {
	gone := func(name plan.MemberName) bool {
		pool, _ := d.cfg.Pool(name.Pool)
		return !has(pool, name.Member)
	}
	kept := maps.Clone(d.memory.drains)
	for _, s := range saved(kept) {
		name := plan.MemberName{Pool: s.Pool, Member: s.Member}
		if gone(name) {
			delete(kept, name)
			d.log.Info("drain dropped, the member has left the configuration",
				"pool", s.Pool, "member", s.Member, "after", age(s.Since), "reason", s.Reason)
		}
	}
	if len(kept) < len(d.memory.drains) {
		d.memory.drains, d.memory.unsaved = kept, true
	}
	maps.DeleteFunc(d.memory.undrained, func(name plan.MemberName, _ time.Time) bool { return gone(name) })
}

func has(pool config.Pool, member string) bool {
	return slices.ContainsFunc(pool.Members, func(m config.Member) bool { return m.Name == member })
}

// age is how long ago t was, to the second.
func age(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }

// change is what a request has changed, or found to be so already.
type change struct {
	name     plan.MemberName
	changed  bool
	was, now *plan.Drain
	warnings []string
}

// drain has the member drained from the next pass on.
func (d *Daemon) drain(r control.DrainRequest) (change, error) {
	name, err := find(d.cfg, r.Member)
	if err != nil {
		return change{}, err
	}
	reason := strings.TrimSpace(r.Reason)
	if fault := fault(reason); fault != "" {
		return change{}, refuse(http.StatusBadRequest, "the reason %s", fault)
	}
	c := change{name: name}
	wanted := plan.Drain{Reason: reason, Since: time.Now().UTC()}
	if was, drained := d.memory.drains[name]; drained {
		// It drains since the first request, whatever is said of it later.
		c.was, wanted.Since = &was, was.Since
		if reason == "" || reason == was.Reason {
			c.now = &was
			return c, nil
		}
	} else if len(d.memory.drains) >= maxDrains {
		return change{}, refuse(http.StatusConflict, "%d members are drained already: undrain one first", maxDrains)
	}
	drains := maps.Clone(d.memory.drains)
	if drains == nil {
		drains = map[plan.MemberName]plan.Drain{}
	}
	drains[name] = wanted
	if c.was == nil {
		if c.warnings, err = d.cost(name, drains, r.Force); err != nil {
			return change{}, err
		}
	}
	if err := d.memory.setDrains(drains); err != nil {
		return change{}, refuse(http.StatusInternalServerError,
			"%s is not drained, because a restart of lb4d would forget it: %v", told(name), err)
	}
	c.changed, c.now = true, &wanted
	d.log.Info("member drained", "pool", name.Pool, "member", name.Member, "reason", reason, "forced", len(c.warnings) > 0)
	return c, nil
}

// cost tells what else a drain does: nothing, or it is refused, or it is
// forced and told as a warning.
func (d *Daemon) cost(name plan.MemberName, drains map[plan.MemberName]plan.Drain, force bool) (warnings []string, err error) {
	if !d.settled {
		if force {
			return []string{"lb4d is starting; the drain is in effect once it is running"}, nil
		}
		return nil, refuse(http.StatusServiceUnavailable,
			"lb4d is starting and cannot tell yet what it costs to drain %s: try again in a moment, or drain it all the same with --force", told(name))
	}
	fallen := plan.Fallen(d.cfg, d.observe(time.Now()), drains)
	if len(fallen) == 0 {
		return nil, nil
	}
	if n := len(fallen) - maxNamed; n > 0 {
		fallen = append(fallen[:maxNamed:maxNamed], fmt.Sprintf("and %d more", n))
	}
	if !force {
		return nil, refuse(http.StatusConflict, "with %s drained, %s: VIPs would be withdrawn; to drain it all the same, use --force",
			told(name), strings.Join(fallen, ", "))
	}
	for _, f := range fallen {
		warnings = append(warnings, "VIPs are withdrawn: "+f)
	}
	return warnings, nil
}

// undrain lets the member take new flows again, as far as its check does.
func (d *Daemon) undrain(r control.DrainRequest) (change, error) {
	name, err := find(d.cfg, r.Member)
	if err != nil {
		return change{}, err
	}
	c := change{name: name}
	was, drained := d.memory.drains[name]
	if !drained {
		return c, nil
	}
	drains := maps.Clone(d.memory.drains)
	delete(drains, name)
	if err := d.memory.setDrains(drains); err != nil {
		return change{}, refuse(http.StatusInternalServerError,
			"%s stays drained, because a restart of lb4d would drain it again: %v", told(name), err)
	}
	d.memory.undrained[name] = time.Now()
	c.changed, c.was = true, &was
	d.log.Info("member undrained", "pool", name.Pool, "member", name.Member, "after", age(was.Since), "reason", was.Reason)
	return c, nil
}

// find is the member that text names: NAME, or POOL/NAME.
func find(cfg *config.Config, text string) (plan.MemberName, error) {
	in, name, both := strings.Cut(text, "/")
	if !both {
		in, name = "", text
	}
	var found []plan.MemberName
	count := map[string]int{} // pools that have a member of that name
	for _, pool := range cfg.Pools {
		for _, m := range pool.Members {
			count[m.Name]++
		}
		if (!both || pool.Name == in) && has(pool, name) {
			found = append(found, plan.MemberName{Pool: pool.Name, Member: name})
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var names []string
	if len(found) > 1 {
		for _, f := range found {
			names = append(names, f.Pool+"/"+f.Member)
		}
		return plan.MemberName{}, refuse(http.StatusBadRequest, "%d pools have a member %s: name one of %s", len(found), name, enough(names))
	}
	for _, pool := range cfg.Pools {
		for _, m := range pool.Members {
			if count[m.Name] > 1 {
				names = append(names, pool.Name+"/"+m.Name)
			} else {
				names = append(names, m.Name)
			}
		}
	}
	return plan.MemberName{}, refuse(http.StatusNotFound, "there is no member %.80q: name one of %s", text, enough(names))
}

// enough lists the first of many names.
func enough(names []string) string {
	const most = 16
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// fault is what is wrong with a reason; empty: nothing.
func fault(reason string) string {
	switch {
	case len(reason) > maxReason:
		return fmt.Sprintf("has %d bytes: write at most %d", len(reason), maxReason)
	case !utf8.ValidString(reason):
		return "is not UTF-8"
	}
	if i := strings.IndexFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return fmt.Sprintf("holds a character that does not print, at byte %d: write it on one line, without control characters", i+1)
	}
	return ""
}

// told is a member's name in a sentence.
func told(name plan.MemberName) string { return name.Member + " of pool " + name.Pool }

func refuse(status int, format string, args ...any) error {
	return &control.Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}

func showDrain(d *plan.Drain) *control.Drain {
	if d == nil {
		return nil
	}
	return &control.Drain{Reason: d.Reason, Since: d.Since}
}
