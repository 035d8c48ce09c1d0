package plan

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
	"lb4d/maintenance"
)

// threeServices are www and api, which share a VIP, and mail.
func threeServices() *config.Config {
	return with(twoMembers(), func(c *config.Config) {
		api, mail := c.Services[0], c.Services[0]
		api.Name, api.Ports = "api", []config.Port{{Number: 8080, Protocol: "tcp"}}
		mail.Name, mail.VIPs = "mail", []netip.Addr{addr("198.51.100.2")}
		c.Services = []config.Service{api, mail, c.Services[0]}
	})
}

// files are maintenance files of services, each there since an hour.
func files(names ...string) map[string]maintenance.State {
	out := map[string]maintenance.State{}
	for _, name := range names {
		name, reason, _ := strings.Cut(name, ": ")
		out[name] = maintenance.State{Path: "/etc/lb/disable.d/" + name, Present: true, Since: ago("1h"), Reason: reason}
	}
	return out
}

// TestServiceFiles: the file of a service takes its VIPs out, and nobody else's
// but where they are the same.
func TestServiceFiles(t *testing.T) {
	host := maintenance.State{Path: "/etc/lb/disable", Present: true, Since: ago("2h"), Reason: "new disk"}
	with := func(m maintenance.State, names ...string) maintenance.State {
		m.Services = files(names...)
		return m
	}
	const api, mail = "198.51.100.1 announced: api forwards to 2 of 2 members, www forwards to 2 of 2 members\n",
		"198.51.100.2 announced: mail forwards to 2 of 2 members\n"
	for _, tt := range []struct {
		name string
		m    maintenance.State
		want string
	}{
		{"no file", maintenance.State{}, api + mail},
		{"of a service with a VIP of its own", with(maintenance.State{}, "mail: new certificate"),
			api + "198.51.100.2 withdrawn: maintenance file /etc/lb/disable.d/mail (new certificate)\n"},
		{"of a service that shares its VIP", with(maintenance.State{}, "www: new certificate"),
			"198.51.100.1 withdrawn: maintenance file /etc/lb/disable.d/www (new certificate); the VIP is that of api too\n" + mail},
		{"of a service that there is not", with(maintenance.State{}, "wwww"), api + mail},
		{"the host's came first", with(host, "mail"),
			"198.51.100.1 withdrawn: maintenance file /etc/lb/disable (new disk)\n" +
				"198.51.100.2 withdrawn: maintenance file /etc/lb/disable (new disk)\n"},
		{"the directory could never be read", maintenance.State{Blind: true, ServicesErr: errors.New("examining maintenance directory: permission denied")},
			"198.51.100.1 withdrawn: examining maintenance directory: permission denied\n" +
				"198.51.100.2 withdrawn: examining maintenance directory: permission denied\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := threeServices()
			d := Decide(cfg, Observations{Now: now, Health: members(cfg, "a up, b up"), Maintenance: tt.m})
			if diff := cmp.Diff(tt.want, show(Decision{}, d.VIPs)); diff != "" {
				t.Errorf("VIPs (-want +got):\n%s", diff)
			}
		})
	}
	if got := Strays(threeServices(), with(host, "mail", "wwww", "x")); !slices.Equal(got, []string{"wwww", "x"}) {
		t.Errorf("strays %q", got)
	}
}

// TestServiceFileDrains: it is a drain like any other, and of those VIPs alone.
func TestServiceFileDrains(t *testing.T) {
	cfg := threeServices()
	file := files("mail")
	m := file["mail"]
	m.Since = now
	file["mail"] = m
	d := Decide(cfg, Observations{
		Now: now, Health: members(cfg, "a up, b up"), Maintenance: maintenance.State{Services: file},
		Announced: map[netip.Addr]bool{addr("198.51.100.1"): true, addr("198.51.100.2"): true},
	})
	if d.VIPs[0].State != Announced || d.VIPs[1].State != Draining || d.VIPs[1].Deadline != now.Add(cfg.BGP.DrainTime) {
		t.Errorf("VIPs %+v", d.VIPs)
	}
}
