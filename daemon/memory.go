package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"lb4d/plan"
)

// memory is the little that the loop cannot read from the kernel or the
// speaker.
type memory struct {
	path string
	// owned are the VIPs that this daemon, or one before it, has put into the
	// kernel and not removed yet. It is the one part that survives a restart:
	// a VIP that leaves the configuration while the daemon is down can be
	// told from another tool's.
	owned []netip.Addr
	// announced are the VIPs announced when last listed.
	announced map[netip.Addr]bool
	// lastAnnounced is when a VIP that left the configuration was last
	// announced.
	lastAnnounced map[netip.Addr]time.Time
	leavingSince  map[plan.Leaver]time.Time
}

// maxStateFile bounds what is read back: 16384 VIPs take less.
const maxStateFile = 1 << 20

type stateFile struct {
	VIPs []netip.Addr `json:"vips"`
}

// recall reads the memory from dir. On an error the memory returned is empty
// and usable.
func recall(dir string) (memory, error) {
	m := memory{
		path:          filepath.Join(dir, "lb4d.json"),
		announced:     map[netip.Addr]bool{},
		lastAnnounced: map[netip.Addr]time.Time{},
		leavingSince:  map[plan.Leaver]time.Time{},
	}
	info, err := os.Stat(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("reading state: %w", err)
	}
	if info.Size() > maxStateFile {
		return m, fmt.Errorf("reading state: %s has %d bytes, more than %d", m.path, info.Size(), maxStateFile)
	}
	data, err := os.ReadFile(m.path)
	if err != nil {
		return m, fmt.Errorf("reading state: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(data, &f); err != nil {
		return m, fmt.Errorf("reading state: %s: %w", m.path, err)
	}
	m.owned = f.VIPs
	return m, nil
}

// own replaces the owned VIPs, on disk first, and only where they changed.
func (m *memory) own(vips []netip.Addr) error {
	slices.SortFunc(vips, netip.Addr.Compare)
	vips = slices.Compact(vips)
	if slices.Equal(vips, m.owned) {
		return nil
	}
	data, err := json.Marshal(stateFile{VIPs: vips})
	if err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	m.owned = vips
	if err := os.MkdirAll(filepath.Dir(m.path), 0o755); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	if err := renameio.WriteFile(m.path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	return nil
}

// note takes in what the pass found announced and leaving.
func (m *memory) note(now time.Time, configured, announced map[netip.Addr]bool, leaving []plan.Leaver) {
	for vip := range announced {
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

	for l := range m.leavingSince {
		if !slices.Contains(leaving, l) {
			delete(m.leavingSince, l)
		}
	}
	for _, l := range leaving {
		if _, ok := m.leavingSince[l]; !ok {
			m.leavingSince[l] = now
		}
	}
}
