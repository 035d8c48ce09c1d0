package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/api"
)

// policy gathers what the export policy is made of.
type policy struct {
	sets       []*api.DefinedSet
	statements []*api.Statement
	markers    markers // those that there is a set of
}

// exportPolicy is what is done to a route on its way to each of the peers: the
// peer's attributes are set where the route has none of its own, and the
// markers are taken away. as is the number of our own autonomous system.
//
// The policy is one for all peers, because GoBGP keeps none for each; so each
// statement names the peers that it is for. Those that want the same are in one
// statement, so that a route passes few of them. A statement changes the route
// and lets it go on to the next one.
func exportPolicy(as uint32, peers []Peer) ([]*api.DefinedSet, *api.Policy) {
	p := &policy{}
	p.nextHops(peers)
	for _, g := range group(peers, func(p Peer) (string, bool) {
		return join(p.Attributes.Communities, formatCommunity), len(p.Attributes.Communities) > 0
	}) {
		p.add("communities", g.peers, setsCommunities, nil, &api.Actions{Community: add(g.value)})
	}
	for _, g := range group(peers, func(p Peer) (string, bool) {
		return join(p.Attributes.LargeCommunities, formatLargeCommunity), len(p.Attributes.LargeCommunities) > 0
	}) {
		p.add("large-communities", g.peers, setsLargeCommunities, nil, &api.Actions{LargeCommunity: add(g.value)})
	}
	for _, g := range group(peers, func(p Peer) (uint32, bool) { return value(p.Attributes.MED) }) {
		p.add("med", g.peers, setsMED, nil, &api.Actions{Med: &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(g.value)}})
	}
	for _, g := range group(peers, func(p Peer) (uint32, bool) { return value(p.Attributes.LocalPreference) }) {
		// GoBGP takes it away again before an external peer sees it.
		p.add("local-preference", g.peers, setsLocalPreference, nil, &api.Actions{LocalPref: &api.LocalPrefAction{Value: g.value}})
	}
	p.prepends(as, peers)
	p.statements = append(p.statements, &api.Statement{
		Name:    "markers",
		Actions: &api.Actions{ExtCommunity: &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE}},
	})
	return p.sets, &api.Policy{Name: exportName, Statements: p.statements}
}

// nextHops sets the next hops that the routes do not set.
//
// Where the peer does not either, routes are in the table with a next hop that
// suits sessions of the other address family (nextHops). On a session of a
// route's own family the local end of the session is better: it is on the path
// between the two by construction, and differs between peers on different
// uplinks. A link-local address is the exception: past the link it means
// nothing.
func (p *policy) nextHops(peers []Peer) {
	const self = "self"
	for _, f := range []struct {
		family *api.Family
		is4    bool
	}{{ipv4Unicast, true}, {ipv6Unicast, false}} {
		for _, g := range group(peers, func(p Peer) (string, bool) {
			hop := p.Attributes.NextHop6
			if f.is4 {
				hop = p.Attributes.NextHop4
			}
			if hop.IsValid() {
				return hop.String(), true
			}
			return self, p.Address.Is4() == f.is4 && !p.Address.IsLinkLocalUnicast()
		}) {
			action := &api.NexthopAction{Address: g.value}
			if g.value == self {
				action = &api.NexthopAction{Self: true}
			}
			p.add("next-hop", g.peers, setsNextHop, f.family, &api.Actions{Nexthop: action})
		}
	}
}

// prepends lengthens the AS path on external sessions, by as much as the route
// says or the peer.
func (p *policy) prepends(as uint32, peers []Peer) {
	var external []netip.Addr
	for _, peer := range peers {
		if peer.AS != as {
			external = append(external, peer.Address)
		}
	}
	if external == nil {
		return
	}
	action := func(n int) *api.Actions {
		return &api.Actions{AsPrepend: &api.AsPrependAction{Asn: as, Repeat: uint32(n)}}
	}
	for _, g := range group(peers, func(p Peer) (int, bool) {
		n, ok := value(p.Attributes.Prepend)
		return n, ok && n > 0 && p.AS != as
	}) {
		p.add("prepend", g.peers, setsPrepend, nil, action(g.value))
	}
	all := p.neighbors(external)
	for n := 1; n <= MaxPrepend; n++ {
		m := prepends.times(n)
		p.statements = append(p.statements, &api.Statement{
			Name:       fmt.Sprintf("route-prepend-%d", n),
			Conditions: &api.Conditions{NeighborSet: all, ExtCommunitySet: p.marked(m, api.MatchSet_TYPE_ANY)},
			Actions:    action(n),
		})
	}
}

// add adds a statement for the routes of a family, or of both, that have not
// the marker.
func (p *policy) add(name string, peers []netip.Addr, unless marker, family *api.Family, actions *api.Actions) {
	conditions := &api.Conditions{
		NeighborSet:     p.neighbors(peers),
		ExtCommunitySet: p.marked(unless, api.MatchSet_TYPE_INVERT),
	}
	if family != nil {
		conditions.AfiSafiIn = []*api.Family{family}
	}
	p.statements = append(p.statements, &api.Statement{
		Name:       fmt.Sprintf("%s-%d", name, len(p.statements)),
		Conditions: conditions,
		Actions:    actions,
	})
}

// neighbors matches the peers given; there must be some, or it matches all.
func (p *policy) neighbors(peers []netip.Addr) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: fmt.Sprintf("peers-%d", len(p.sets))}
	for _, a := range peers {
		set.List = append(set.List, netip.PrefixFrom(a.WithZone(""), a.BitLen()).String())
	}
	p.sets = append(p.sets, set)
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set.Name}
}

// marked matches routes that have the marker, or that have not.
func (p *policy) marked(m marker, how api.MatchSet_Type) *api.MatchSet {
	if !p.markers.has(m) {
		p.markers |= 1 << m
		p.sets = append(p.sets, &api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_EXT_COMMUNITY, Name: m.String(), List: []string{m.String()}})
	}
	return &api.MatchSet{Type: how, Name: m.String()}
}

// grouped are the peers that want one value.
type grouped[T comparable] struct {
	value T
	peers []netip.Addr
}

// group gathers the peers that want something by what they want, in their
// order.
func group[T comparable](peers []Peer, want func(Peer) (T, bool)) []grouped[T] {
	var groups []grouped[T]
	at := map[T]int{}
	for _, p := range peers {
		v, ok := want(p)
		if !ok {
			continue
		}
		i, known := at[v]
		if !known {
			i = len(groups)
			at[v] = i
			groups = append(groups, grouped[T]{value: v})
		}
		groups[i].peers = append(groups[i].peers, p.Address)
	}
	return groups
}

func value[T any](p *T) (v T, ok bool) {
	if p == nil {
		return v, false
	}
	return *p, true
}

// join writes a list as one string, and add reads it.
func join[T any](list []T, format func(T) string) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = format(v)
	}
	return strings.Join(words, " ")
}

func add(list string) *api.CommunityAction {
	return &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: strings.Fields(list)}
}

// The policies in force have the same names all the time. GoBGP then puts a new
// set of them in force in one step (RoutingPolicy.Reset), and no route meets a
// moment without.
const (
	exportName = "export"
	importName = "own-routes"
)

// setPolicies has GoBGP take nothing from peers, and make of each route what
// each peer is to be sent. Routes that were sent already stay as they are until
// the peer is refreshed.
func (g *gobgp) setPolicies(ctx context.Context, as uint32, peers []Peer) error {
	sets, export := exportPolicy(as, peers)
	imports := &api.Policy{Name: importName, Statements: []*api.Statement{{
		Name:       importName,
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}
	if err := g.SetPolicies(ctx, &api.SetPoliciesRequest{DefinedSets: sets, Policies: []*api.Policy{export, imports}}); err != nil {
		return fmt.Errorf("setting the BGP export policy: %w", err)
	}
	return nil
}

// assignPolicies has GoBGP use the policies. It needs to be told once.
func (g *gobgp) assignPolicies(ctx context.Context) error {
	for _, a := range []*api.PolicyAssignment{
		{Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
			Policies: []*api.Policy{{Name: importName}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT},
		{Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
			Policies: []*api.Policy{{Name: exportName}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	} {
		if err := g.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return err
		}
	}
	return nil
}
