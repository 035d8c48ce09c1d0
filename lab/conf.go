package lab

import (
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"
	"time"
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
	Pool                     Pool
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

// Modes are the tunnels that the LB7 hosts terminate, as [tunnel] names them.
func (d confData) Modes() []string {
	switch {
	case d.Pool.Encapsulation == GUE || d.Pool.Encapsulation == GRE:
		return []string{string(d.Pool.Encapsulation)}
	case d.Pool.Underlay4:
		return []string{"ipip"}
	}
	return []string{"ipip", "ip6ip6"}
}

// Families are the address families that the reflectors speak, each in
// sessions of its own.
func (d confData) Families() []string { return []string{"ipv4", "ipv6"} }

// configure writes each host's configuration files.
func (t *Topology) configure() error {
	for i := range t.Hosts {
		h := &t.Hosts[i]
		files, err := t.filesOf(h, Pool{})
		if err != nil {
			return err
		}
		h.Files = append(h.Files, files...)
	}
	return nil
}

// Encapsulation is what the LB4 hosts send users' packets on in.
type Encapsulation string

// The encapsulations, as lb4d.toml names them.
const (
	IPIP Encapsulation = "ipip"
	GUE  Encapsulation = "gue"
	GRE  Encapsulation = "gre"
)

// Pool is what the LB4 hosts are told of the LB7 hosts, and these of them.
type Pool struct {
	// Members are the names of those that take part; all where empty.
	Members []string `json:"members,omitempty"`
	// PurgeAfter is how long one that fails keeps its flows; the daemon's
	// default where 0.
	PurgeAfter time.Duration `json:"purge_after_ns,omitempty"`
	// Encapsulation is lb4d's default, IPIP, where empty.
	Encapsulation Encapsulation `json:"encapsulation,omitempty"`
	// Underlay4 has the members' IPv4 addresses alone, so that IPv6 travels in
	// IPv4. For lb4d only.
	Underlay4 bool `json:"underlay4,omitempty"`
}

// tell rewrites the configuration of the LB4 hosts and of the LB7 hosts.
func (t *Topology) tell(pool Pool) error {
	for _, h := range slices.Concat(t.ByRole(RoleLB4), t.ByRole(RoleLB7)) {
		files, err := t.filesOf(h, pool)
		if err != nil {
			return err
		}
		h.Files = slices.DeleteFunc(h.Files, func(old File) bool {
			return slices.ContainsFunc(files, func(f File) bool { return f.Path == old.Path })
		})
		h.Files = append(h.Files, files...)
	}
	return nil
}

// filesOf writes a host's configuration files.
func (t *Topology) filesOf(h *Host, pool Pool) ([]File, error) {
	members := slices.DeleteFunc(t.ByRole(RoleLB7), func(m *Host) bool {
		return len(pool.Members) > 0 && !slices.Contains(pool.Members, m.Name)
	})
	var files []File
	for _, f := range t.templates(h) {
		var b strings.Builder
		err := confTemplates.ExecuteTemplate(&b, f.template, confData{
			Topology:   t,
			Host:       h,
			LB7s:       members,
			Pool:       pool,
			Reflectors: t.ByRole(RoleReflector),
			Origin:     t.ByRole(RoleServer),
			Infra:      infraPrefix,
			AgentPort:  agentPort,
			OriginPort: originPort,
		})
		if err != nil {
			return nil, fmt.Errorf("writing %s of %s: %w", f.path, h.Name, err)
		}
		files = append(files, File{Path: f.path, Content: b.String()})
	}
	return files, nil
}

// templated is a file and the template that it is made of.
type templated struct{ path, template string }

func (t *Topology) templates(h *Host) []templated {
	switch {
	case h.Role == RoleRouter:
		return []templated{{"/etc/bird/bird.conf", "bird-router.conf"}}
	case h.Role == RoleReflector && t.Reflector == BIRD:
		return []templated{{"/etc/bird/bird.conf", "bird-reflector.conf"}}
	case h.Role == RoleReflector:
		return []templated{{"/etc/gobgp/gobgpd.yaml", "gobgpd.yaml"}}
	case h.Role == RoleLB4 && t.Balancer == Keepalived:
		return []templated{
			{"/etc/keepalived/keepalived.conf", "keepalived.conf"},
			{"/etc/exabgp/exabgp.conf", "exabgp.conf"},
			{"/etc/exabgp/exabgp.env", "exabgp.env"},
		}
	case h.Role == RoleLB4:
		return []templated{{"/etc/lb/lb4d.toml", "lb4d.toml"}}
	case h.Role == RoleLB7:
		return []templated{{"/etc/haproxy/haproxy.cfg", "haproxy.cfg"}, {"/etc/lb/lb7d.toml", "lb7d.toml"}}
	}
	return nil
}

// Group is the VIPs and members of one family, as the rival's programs
// take them.
type Group struct {
	Name    string // v4 or v6
	VIPs    []netip.Addr
	Ports   []uint16
	Members []netip.Addr
	// Delay is the interval of checks, in seconds.
	Delay int
}

// Groups are those of both families, IPv4 first.
func (d confData) Groups() []Group {
	var groups []Group
	for _, g := range []Group{{Name: "v4", VIPs: family(d.VIPs, false)}, {Name: "v6", VIPs: family(d.VIPs, true)}} {
		g.Ports, g.Delay = d.Ports, int(d.Sizes.CheckInterval().Seconds())
		for _, m := range d.LB7s {
			g.Members = append(g.Members, m.member(g.VIPs[0]))
		}
		groups = append(groups, g)
	}
	return groups
}
