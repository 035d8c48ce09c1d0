package daemon

import (
	"errors"
	"fmt"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/internal/service"
	"lb4d/plan"
)

// reload puts a new configuration in force, as one step or not at all: all
// that can fail comes before anything live is touched.
func (d *Daemon) reload() {
	d.opts.Notify(service.Reloading())
	d.readyDue = true
	if err := d.tryReload(); err != nil {
		d.counters.ReloadsFailed++
		d.cfgFile.Error, d.cfgFile.ErrorAt = oneLine(err), time.Now()
		d.log.Error("reload refused, the configuration in force stays", "err", d.cfgFile.Error)
		return
	}
	d.counters.Reloads++
	d.cfgFile = control.ConfigFile{Path: d.opts.ConfigPath, Loaded: time.Now()}
	d.log.Info("reloaded", "config", d.opts.ConfigPath,
		"vips", len(vipsOf(d.cfg)), "checks", len(plan.Targets(d.cfg)), "peers", len(d.cfg.BGP.Peers))
}

func (d *Daemon) tryReload() error {
	cfg, err := config.Load(d.opts.ConfigPath)
	if err != nil {
		return err
	}
	if err := needsRestart(d.cfg, cfg); err != nil {
		return err
	}
	if cfg.HTTP.Listen != d.cfg.HTTP.Listen {
		if err := d.control.SetListen(cfg.HTTP.Listen); err != nil {
			return err
		}
	}
	// From here on nothing fails.
	d.cfg, d.reloaded = cfg, true
	d.dropDrains()
	return nil
}

// needsRestart refuses what cannot change while sessions and sockets are up.
func needsRestart(old, new *config.Config) error {
	var errs []error
	for _, key := range []struct {
		name     string
		old, new any
	}{
		{"bgp.as", old.BGP.AS, new.BGP.AS},
		{"bgp.router_id", old.BGP.RouterID, new.BGP.RouterID},
		{"bgp.listen_port", old.BGP.ListenPort, new.BGP.ListenPort},
		{"control.socket", old.Control.Socket, new.Control.Socket},
		{"control.group", old.Control.Group, new.Control.Group},
		{"state_dir", old.StateDir, new.StateDir},
		{"maintenance_file", old.MaintenanceFile, new.MaintenanceFile},
		{"check_mark", old.CheckMark, new.CheckMark},
	} {
		if key.old != key.new {
			errs = append(errs, fmt.Errorf("%s: cannot change from %v to %v in a running daemon; restart lb4d", key.name, key.old, key.new))
		}
	}
	return errors.Join(errs...)
}
