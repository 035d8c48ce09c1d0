package daemon

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/maintenance"
	"lb4d/plan"
)

// maxDisabled bounds for how long a maintenance file may count.
const maxDisabled = 366 * 24 * time.Hour

// Disable writes the maintenance file of the host or of a service, and returns
// when a pass has carried it out. It may be called from any goroutine.
func (d *Daemon) Disable(ctx context.Context, r control.DisableRequest) (*control.DisableAnswer, error) {
	return ask(ctx, d, func() (func() *control.DisableAnswer, error) { return d.disable(r) })
}

// Enable removes that file, as Disable writes it.
func (d *Daemon) Enable(ctx context.Context, r control.EnableRequest) (*control.DisableAnswer, error) {
	return ask(ctx, d, func() (func() *control.DisableAnswer, error) { return d.enable(r) })
}

func (d *Daemon) disable(r control.DisableRequest) (func() *control.DisableAnswer, error) {
	path, err := d.filePath(r.Service)
	if err != nil {
		return nil, err
	}
	note := maintenance.Note{Reason: strings.TrimSpace(r.Reason), By: strings.TrimSpace(r.By)}
	for what, text := range map[string]string{"reason": note.Reason, "name": note.By} {
		if fault := fault(text); fault != "" {
			return nil, refuse(http.StatusBadRequest, "the %s %s", what, fault)
		}
	}
	switch length := time.Duration(r.Seconds * float64(time.Second)); {
	case r.Seconds == 0:
	case !(r.Seconds >= 1 && r.Seconds <= maxDisabled.Seconds()):
		return nil, refuse(http.StatusBadRequest, "%gs is not between 1s and a year", r.Seconds)
	default:
		// In whole seconds, as the file has it, and never less than asked for.
		note.Until = time.Now().Add(length + time.Second).Truncate(time.Second).UTC()
	}
	warnings, err := d.missed(r)
	if err != nil {
		return nil, err
	}
	was, known := d.fileOf(r.Service)
	switch err := maintenance.Write(path, note); {
	case errors.Is(err, maintenance.ErrMisread):
		return nil, refuse(http.StatusBadRequest, "%v", maintenance.ErrMisread)
	case err != nil:
		return nil, d.mayNot(err, "write", path)
	}
	d.log.Info("disabled by the operator", "path", path, "by", note.By, "forced", r.Force)
	return d.disabled(r.Service, path, was, known, warnings...), nil
}

// missed refuses, without force, to take out what no other host announces. The
// file itself is always obeyed, whoever else there is.
func (d *Daemon) missed(r control.DisableRequest) (warnings []string, err error) {
	v := d.seen.Load()
	if v == nil {
		return nil, nil // nothing is announced yet
	}
	var vips []plan.VIP
	for _, vip := range v.vips {
		if r.Service == "" || slices.Contains(vip.Services, r.Service) {
			vips = append(vips, vip)
		}
	}
	last, unsure := plan.Last(vips, d.others())
	switch {
	case len(last) > 0 && !r.Force:
		return nil, refuse(http.StatusConflict, "no other host announces %s: withdrawn here, nobody reaches it; to disable all the same, use --force",
			enough(sentences(last)))
	case len(last) > 0:
		warnings = append(warnings, "no other host announces "+enough(sentences(last)))
	}
	if len(unsure) > 0 && d.cfg.BGP.Siblings {
		warnings = append(warnings, "whether another host announces it is not known, because no peer tells: "+enough(sentences(unsure)))
	}
	return warnings, nil
}

func (d *Daemon) enable(r control.EnableRequest) (func() *control.DisableAnswer, error) {
	path, err := d.filePath(r.Service)
	if err != nil && !isStray(d.maintenance.State(), r.Service) {
		return nil, err
	}
	path = cmp.Or(path, maintenance.ServicePath(d.cfg.MaintenanceFile, r.Service))
	was, known := d.fileOf(r.Service)
	removed, err := maintenance.Remove(path)
	if err != nil {
		return nil, d.mayNot(err, "remove", path)
	}
	if removed {
		d.log.Info("enabled by the operator", "path", path)
	}
	return d.disabled(r.Service, path, was, known || removed), nil
}

// isStray tells that there is a file of a service that there is not. It may be
// taken away.
func isStray(m maintenance.State, service string) bool {
	_, there := m.Services[service]
	return there
}

// filePath is the file of a service, or the host's.
func (d *Daemon) filePath(service string) (string, error) {
	if service == "" {
		return d.cfg.MaintenanceFile, nil
	}
	if slices.ContainsFunc(d.cfg.Services, func(s config.Service) bool { return s.Name == service }) {
		return maintenance.ServicePath(d.cfg.MaintenanceFile, service), nil
	}
	var names []string
	for _, s := range d.cfg.Services {
		names = append(names, s.Name)
	}
	return "", refuse(http.StatusNotFound, "there is no service %.80q: name one of %s", service, enough(names))
}

// fileOf is what is known of that file; false: it is not there.
func (d *Daemon) fileOf(service string) (maintenance.State, bool) {
	m := d.maintenance.State()
	if service == "" {
		return m, m.Present
	}
	file, there := m.Services[service]
	return file, there
}

// disabled has the file seen, and makes the answer after the pass.
func (d *Daemon) disabled(service, path string, was maintenance.State, known bool, warnings ...string) func() *control.DisableAnswer {
	d.maintenance.Refresh()
	return func() *control.DisableAnswer {
		now, there := d.fileOf(service)
		a := &control.DisableAnswer{
			Host: d.shown.Host, Path: path, Was: known, Disabled: there, VIPs: []control.VIP{}, Warnings: warnings, Errors: d.shown.Errors,
		}
		if known {
			a.WasReason = was.Reason
		}
		if there {
			a.Reason, a.Until = now.Reason, now.Until
		}
		for _, v := range d.shown.VIPs {
			if service == "" || slices.Contains(v.Services, service) {
				a.VIPs = append(a.VIPs, v)
			}
		}
		if host, still := d.fileOf(""); !there && service != "" && still {
			a.Warnings = append(a.Warnings, "the host itself is disabled by "+host.Path+because(host.Reason))
		}
		if services := d.maintenance.State().Services; !there && service == "" && len(services) > 0 {
			a.Warnings = append(a.Warnings, "services are disabled by files of their own: "+
				enough(slices.Sorted(maps.Keys(services))))
		}
		return a
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// mayNot is why a file could not be written or removed. What the daemon's user
// may not, root may.
func (d *Daemon) mayNot(err error, verb, path string) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return refuse(http.StatusInternalServerError, "%v", err)
	}
	name := "the user of lb4d"
	if u, err := user.Current(); err == nil {
		name = "lb4d's user " + u.Username
	}
	return refuse(http.StatusForbidden, "%v: %s may not %s %s; run this as root", err, name, verb, path)
}

// showMaintenance shows what is known of the files.
func showMaintenance(m maintenance.State, strays []string) control.Maintenance {
	out := control.Maintenance{
		Path: m.Path, Present: m.Present, Since: m.Since, Reason: m.Reason,
		Until: m.Until, By: m.By, HeldUntil: m.HeldUntil,
		Error: oneLine(m.Err), ServicesError: oneLine(m.ServicesErr),
	}
	for _, name := range slices.Sorted(maps.Keys(m.Services)) {
		s := m.Services[name]
		out.Services = append(out.Services, control.ServiceMaintenance{
			Service: name, Path: s.Path, Since: s.Since, Reason: s.Reason, Until: s.Until, By: s.By,
			HeldUntil: s.HeldUntil, Error: oneLine(s.Err), Unknown: slices.Contains(strays, name),
		})
	}
	return out
}

// tellStrays logs each file of a service that there is not, once.
func (r *reporter) tellStrays(log *slog.Logger, files []control.ServiceMaintenance) {
	var now []string
	for _, f := range files {
		if !f.Unknown {
			continue
		}
		now = append(now, f.Path)
		if !slices.Contains(r.strays, f.Path) && len(now) <= maxNamed {
			log.Warn("maintenance file of a service that there is not", "path", f.Path)
		}
	}
	r.strays = now
}
