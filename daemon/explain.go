package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"lb4d/config"
	"lb4d/control"
	"lb4d/l4"
	"lb4d/plan"
)

// kept is what a Maglev table does not say of a flow.
const kept = "a flow that this host already carries keeps its member, whatever the table says"

// Explain tells where a flow goes, by the table that the kernel had when the
// last pass ended. It may be called from any goroutine.
func (d *Daemon) Explain(_ context.Context, r control.ExplainRequest) (*control.ExplainAnswer, error) {
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	return v.explain(r)
}

func (v *view) explain(r control.ExplainRequest) (*control.ExplainAnswer, error) {
	client, err := parseClient(r.Client)
	if err != nil {
		return nil, err
	}
	key, err := parseService(r.Service)
	if err != nil {
		return nil, err
	}
	service, err := v.service(key)
	if err != nil {
		return nil, err
	}
	if client.Addr().Is4() != key.VIP.Is4() {
		return nil, refuse(http.StatusBadRequest, "%s is %s and %s is %s: no flow goes from the one to the other",
			client.Addr(), family(client.Addr()), key.VIP, family(key.VIP))
	}
	i := slices.IndexFunc(v.listed, func(s l4.Service) bool { return s.Key == key })
	if i < 0 {
		return nil, refuse(http.StatusServiceUnavailable, "%s is not in the kernel's table: see lbctl status", key)
	}
	listed := v.listed[i]
	if listed.Scheduler != "mh" {
		return nil, refuse(http.StatusConflict, "%s has the scheduler %s, and only of mh can be told where a flow goes", key, listed.Scheduler)
	}
	m, err := l4.NewMaglev(listed)
	if err != nil {
		return nil, refuse(http.StatusConflict, "%v", err)
	}
	choice := m.Lookup(client)
	a := &control.ExplainAnswer{
		Host: v.host, Client: client.String(), Service: key.String(),
		Name: service.Name, Pool: service.Pool,
		Fingerprint: m.Fingerprint(), Slot: choice.Slot, Slots: l4.TableSize, Rehashes: choice.Rehashes,
		Owner: v.destination(service, listed, choice.Owner), Used: v.destination(service, listed, choice.Used),
		Kept: kept,
	}
	a.Reason = why(a, listed)
	for _, vip := range v.vips {
		if vip.Addr == key.VIP {
			a.VIPState, a.VIPReason = vip.State.String(), vip.Reason
		}
	}
	return a, nil
}

// parseClient reads the source of a flow.
func parseClient(s string) (netip.AddrPort, error) {
	ap, err := parseAddrPort(s)
	if err != nil {
		return ap, refuse(http.StatusBadRequest, "the client %.80q is no address with a port: write it as 203.0.113.7:40000 or [2001:db8::7]:40000", s)
	}
	return ap, nil
}

// parseService reads the destination of a flow.
func parseService(s string) (l4.Key, error) {
	text, name, named := strings.Cut(s, "/")
	ap, err := parseAddrPort(text)
	key := l4.Key{VIP: ap.Addr(), Port: ap.Port(), Protocol: l4.TCP}
	switch {
	case err != nil, named && name != "tcp" && name != "udp":
		return key, refuse(http.StatusBadRequest, "the service %.80q is no VIP with a port: write it as 198.51.100.1:80, 198.51.100.1:53/udp or [2001:db8::1]:80", s)
	case name == "udp":
		key.Protocol = l4.UDP
	}
	return key, nil
}

func parseAddrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err == nil && ap.Addr().Zone() != "" {
		err = fmt.Errorf("%s has a zone", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err
}

// service is the service of the configuration that has the key.
func (v *view) service(key l4.Key) (config.Service, error) {
	var names []string
	for _, s := range v.cfg.Services {
		for _, k := range plan.Keys(s) {
			if k == key {
				return s, nil
			}
			names = append(names, k.String())
		}
	}
	if len(names) == 0 {
		return config.Service{}, refuse(http.StatusNotFound, "there is no service %s: the configuration has none at all", key)
	}
	return config.Service{}, refuse(http.StatusNotFound, "there is no service %s: name one of %s", key, enough(names))
}

// destination shows the destination with the index i of a listed service; nil
// for none.
func (v *view) destination(service config.Service, listed l4.Service, i int) *control.Destination {
	if i < 0 {
		return nil
	}
	d := listed.Destinations[i]
	out := &control.Destination{
		Address: d.AddrPort().String(), Weight: d.Weight, FullWeight: d.FullWeight,
		Reason: "not in the configuration",
	}
	for _, m := range v.decision.Members {
		if m.Pool == service.Pool && m.Addr == d.Addr {
			out.Member, out.State, out.Reason = m.Member, m.State.String(), m.Reason
		}
	}
	return out
}

// why is the way of a flow through the table in a sentence.
func why(a *control.ExplainAnswer, listed l4.Service) string {
	const refused = "so the kernel refuses the flow"
	switch {
	case a.Owner == nil:
		return "no member has slots, " + refused
	case a.Used == nil && listed.Flags&l4.MHFallback == 0:
		return "the slot's owner takes no new flows and the service has no mh-fallback, " + refused
	case a.Used == nil && a.Rehashes == 0:
		return "no member takes new flows, " + refused
	case a.Used == nil:
		return fmt.Sprintf("hashed again %s, the flow met no member that takes new flows, %s", times(a.Rehashes), refused)
	case a.Rehashes > 0:
		return fmt.Sprintf("the slot's owner takes no new flows; hashed again %s, the flow goes to %s until the owner is back", times(a.Rehashes), a.Used.Address)
	}
	return "the slot's owner takes new flows"
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
