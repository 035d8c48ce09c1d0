package lab

import (
	"embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
)

//go:embed conf
var confFS embed.FS

var confTemplates = template.Must(template.New("conf").Funcs(template.FuncMap{
	"lower": strings.ToLower,
	"max":   func(a, b int) int { return max(a, b) },
	"twin":  twinPrefix,
	"quote": func(addrs []netip.Addr) string {
		var words []string
		for _, a := range addrs {
			words = append(words, fmt.Sprintf("%q", a))
		}
		return strings.Join(words, ", ")
	},
}).ParseFS(confFS, "conf/*"))

// confData is what every template sees: the host whose file it is, and the
// lab around it.
type confData struct {
	*Topology
	Host                     *Host
	LB7s, Reflectors, Origin []*Host
	Infra                    netip.Prefix
	AgentPort, OriginPort    int
}

// Services groups the VIPs: two services, so that one can be told from the
// other, each in both families.
func (d confData) Services() map[string][]netip.Addr {
	services := make(map[string][]netip.Addr)
	for i, a := range d.VIPs {
		name := "www"
		if i%vipCount >= vipCount/2 {
			name = "api"
		}
		services[name] = append(services[name], a)
	}
	return services
}

// Intervals for the templates, in the words of the program that reads them.
func (d confData) CheckInterval() string { return d.Sizes.CheckInterval().String() }

func (d confData) ServerInterval() int64 { return d.Sizes.serverInterval().Milliseconds() }

func (d confData) AgentInterval() int64 { return d.Sizes.agentInterval().Milliseconds() }

// Families are the address families that the reflectors speak, each in
// sessions of its own.
func (d confData) Families() []string { return []string{"ipv4", "ipv6"} }

// configure writes each host's configuration files.
func (t *Topology) configure() error {
	for i := range t.Hosts {
		h := &t.Hosts[i]
		var path, name string
		switch {
		case h.Role == RoleRouter:
			path, name = "/etc/bird/bird.conf", "bird-router.conf"
		case h.Role == RoleReflector && t.Reflector == BIRD:
			path, name = "/etc/bird/bird.conf", "bird-reflector.conf"
		case h.Role == RoleReflector:
			path, name = "/etc/gobgp/gobgpd.yaml", "gobgpd.yaml"
		case h.Role == RoleLB4:
			path, name = "/etc/lb/lb4d.toml", "lb4d.toml"
		case h.Role == RoleLB7:
			path, name = "/etc/haproxy/haproxy.cfg", "haproxy.cfg"
		default:
			continue
		}
		var b strings.Builder
		err := confTemplates.ExecuteTemplate(&b, name, confData{
			Topology:   t,
			Host:       h,
			LB7s:       t.ByRole(RoleLB7),
			Reflectors: t.ByRole(RoleReflector),
			Origin:     t.ByRole(RoleServer),
			Infra:      infraPrefix,
			AgentPort:  agentPort,
			OriginPort: originPort,
		})
		if err != nil {
			return fmt.Errorf("writing %s of %s: %w", path, h.Name, err)
		}
		h.Files = append(h.Files, File{Path: path, Content: b.String()})
	}
	return nil
}
