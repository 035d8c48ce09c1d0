package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"lb4d/plan"
	"lb4d/tunnel"
)

// memory is the little that the loop cannot read from the kernel or the
// speaker.
type memory struct {
	path string
	// owned are the VIPs that this daemon, or one before it, has put into the
	// kernel and not removed yet. They survive a restart: a VIP that leaves
	// the configuration while the daemon is down can be told from another
	// tool's.
	owned []netip.Addr
	// drains are the members that an operator has drained. They survive a
	// restart too, and so does a host's maintenance that lasts for longer
	// than the process. The map is replaced and never changed.
	drains map[plan.MemberName]plan.Drain
	// flaps are the VIPs that have failed lately. A restart does not
	// make a bad night a good one.
	flaps map[netip.Addr]plan.Flaps
	// left are the VIPs whose routes a process leaves with the peers when it
	// goes without a word: those announced when the loop last came around, and
	// until the first decision those of the process before. boot names the boot
	// that this was in.
	left []netip.Addr
	boot string
	// marks is the first of the firewall marks whose services may be in the
	// kernel and are ours; 0: there are none.
	marks uint32
	// borrowed are the sysctls that were set for the checks, to be set back.
	borrowed []tunnel.SysctlChange
	// unsaved tells that the file does not hold all of the above.
	unsaved bool
	// undrained is when the drain of a member ended.
	undrained map[plan.MemberName]time.Time
	// forwarding is which services forwarded when last decided on.
	forwarding map[plan.ServiceFamily]bool
	// announced are the VIPs announced when last listed.
	announced map[netip.Addr]bool
	// lastAnnounced is when a VIP that left the configuration was last
	// announced.
	lastAnnounced map[netip.Addr]time.Time
	leavingSince  map[plan.Leaver]time.Time
}

// maxStateFile bounds what is read back: 16384 VIPs, maxDrains drains and
// maxBorrowed sysctls take less.
const maxStateFile = 2 << 20

type stateFile struct {
	VIPs   []netip.Addr `json:"vips"`
	Drains []savedDrain `json:"drains,omitempty"`
	Flaps  []savedFlaps `json:"flaps,omitempty"`
	// Announced and Boot are memory.left and memory.boot.
	Announced []netip.Addr `json:"announced,omitempty"`
	Boot      string       `json:"boot,omitempty"`
	// CheckMark is memory.marks.
	CheckMark uint32        `json:"check_mark,omitempty"`
	Sysctls   []savedSysctl `json:"sysctls,omitempty"`
}

// savedSysctl is a borrowed sysctl in the state file.
type savedSysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Was   string `json:"was"`
}

// maxBorrowed bounds how many sysctls are noted: two for each device that leads
// to a member.
const maxBorrowed = 1024

// recall reads the memory from dir. On an error the memory returned is usable:
// empty, or without what cannot be true.
func recall(dir string) (memory, error) {
	m := memory{
		path:          filepath.Join(dir, "lb4d.json"),
		announced:     map[netip.Addr]bool{},
		lastAnnounced: map[netip.Addr]time.Time{},
		leavingSince:  map[plan.Leaver]time.Time{},
		undrained:     map[plan.MemberName]time.Time{},
	}
	f, err := readState(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		// The next save would write over it; what it holds may be wanted.
		aside := m.path + ".bad"
		if os.Rename(m.path, aside) == nil {
			return m, fmt.Errorf("reading state: %w: begun anew, the file is kept as %s", err, aside)
		}
		return m, fmt.Errorf("reading state: %w: begun anew", err)
	}
	refused := f.sift()
	m.unsaved = len(refused) > 0
	m.owned, m.drains, m.flaps = f.VIPs, restored(f.Drains), restoredFlaps(f.Flaps, time.Now())
	m.left, m.boot = f.Announced, f.Boot
	m.marks = f.CheckMark
	for _, s := range f.Sysctls[:min(len(f.Sysctls), maxBorrowed)] {
		m.borrowed = append(m.borrowed, tunnel.SysctlChange{Sysctl: tunnel.Sysctl{Key: s.Key, Value: s.Value}, Was: s.Was})
	}
	return m, siftedError(m.path, refused)
}

// readState reads the state file. What is no regular file could hold a start
// up for ever.
func readState(path string) (stateFile, error) {
	var f stateFile
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return f, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return f, err
	case !info.Mode().IsRegular():
		return f, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxStateFile+1))
	switch {
	case err != nil:
		return f, err
	case len(data) > maxStateFile:
		return f, fmt.Errorf("%s has more than %d bytes", path, maxStateFile)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return stateFile{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// own replaces the owned VIPs, on disk first, and only where they changed or
// could not be written before.
func (m *memory) own(vips []netip.Addr) error {
	slices.SortFunc(vips, netip.Addr.Compare)
	vips = slices.Compact(vips)
	if slices.Equal(vips, m.owned) && !m.unsaved {
		return nil
	}
	m.owned, m.unsaved = vips, true
	return m.save(m.drains)
}

// useMarks notes whose services of firewall marks are ours, on disk first.
func (m *memory) useMarks(first uint32) error {
	if first == m.marks && !m.unsaved {
		return nil
	}
	m.marks, m.unsaved = first, true
	return m.save(m.drains)
}

// borrow notes sysctls that are about to be set, on disk first. Of two changes
// of one key the later counts: what it was before the later is the last value
// that was not ours.
func (m *memory) borrow(changes []tunnel.SysctlChange) error {
	if len(changes) == 0 {
		return nil
	}
	kept := slices.DeleteFunc(slices.Clone(m.borrowed), func(b tunnel.SysctlChange) bool {
		return slices.ContainsFunc(changes, func(c tunnel.SysctlChange) bool { return c.Key == b.Key })
	})
	m.borrowed, m.unsaved = append(kept, changes...), true
	return m.save(m.drains)
}

// returned notes that all borrowed sysctls are set back.
func (m *memory) returned() error {
	m.borrowed, m.unsaved = nil, true
	return m.save(m.drains)
}

// save writes the memory that survives, with the drains given.
func (m *memory) save(drains map[plan.MemberName]plan.Drain) error {
	var data bytes.Buffer
	e := json.NewEncoder(&data)
	e.SetEscapeHTML(false)
	f := stateFile{VIPs: m.owned, Drains: saved(drains), Flaps: savedOf(m.flaps), Announced: m.left, Boot: m.boot, CheckMark: m.marks}
	for _, b := range m.borrowed[:min(len(m.borrowed), maxBorrowed)] {
		f.Sysctls = append(f.Sysctls, savedSysctl{b.Key, b.Value, b.Was})
	}
	if err := e.Encode(f); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(m.path), 0o755); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	if err := renameio.WriteFile(m.path, data.Bytes(), 0o644); err != nil {
		// Without the name of the temporary file, which is another one each
		// time: the same fault is told once.
		var op *fs.PathError
		if errors.As(err, &op) {
			err = op.Err
		}
		return fmt.Errorf("writing state to %s: %w", m.path, err)
	}
	m.unsaved = false
	return nil
}

// note takes in what the pass has found announced and left announced, and what
// was decided.
func (m *memory) note(now time.Time, configured, found, announced map[netip.Addr]bool, decision plan.Decision) {
	m.forwarding = decision.Forwarding
	if !maps.Equal(m.flaps, decision.Flaps) {
		m.flaps, m.unsaved = decision.Flaps, true
	}
	for vip := range found {
		if !configured[vip] {
			m.lastAnnounced[vip] = now
		}
	}
	for vip := range m.lastAnnounced {
		if configured[vip] || !slices.Contains(m.owned, vip) {
			delete(m.lastAnnounced, vip)
		}
	}
	m.announced = announced

	since := make(map[plan.Leaver]time.Time, len(decision.Leaving))
	for _, l := range decision.Leaving {
		since[l] = now
		if was, ok := m.leavingSince[l]; ok {
			since[l] = was
		}
	}
	m.leavingSince = since
}
