package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Equal reports whether both set the same attributes to the same values.
func (a Attributes) Equal(b Attributes) bool {
	return sameList(a.Communities, b.Communities) &&
		sameList(a.LargeCommunities, b.LargeCommunities) &&
		sameValue(a.MED, b.MED) &&
		sameValue(a.LocalPreference, b.LocalPreference) &&
		sameValue(a.Prepend, b.Prepend) &&
		a.NextHop4 == b.NextHop4 && a.NextHop6 == b.NextHop6
}

func sameList[T comparable](a, b []T) bool {
	return (a == nil) == (b == nil) && slices.Equal(a, b)
}

func sameValue[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// String is what is set, as an operator would write it: communities 65000:100
// med 50. It is empty where nothing is.
func (a Attributes) String() string {
	var words []string
	say := func(name string, values ...string) {
		if len(values) == 0 {
			values = []string{"none"}
		}
		words = append(words, name+" "+strings.Join(values, ","))
	}
	if a.Communities != nil {
		var all []string
		for _, c := range a.Communities {
			all = append(all, formatCommunity(c))
		}
		say("communities", all...)
	}
	if a.LargeCommunities != nil {
		var all []string
		for _, c := range a.LargeCommunities {
			all = append(all, formatLargeCommunity(c))
		}
		say("large-communities", all...)
	}
	if a.MED != nil {
		say("med", fmt.Sprint(*a.MED))
	}
	if a.LocalPreference != nil {
		say("local-preference", fmt.Sprint(*a.LocalPreference))
	}
	if a.Prepend != nil {
		say("prepend", fmt.Sprint(*a.Prepend))
	}
	var hops []string
	for _, hop := range []netip.Addr{a.NextHop4, a.NextHop6} {
		if hop.IsValid() {
			hops = append(hops, hop.String())
		}
	}
	if hops != nil {
		say("next-hop", hops...)
	}
	return strings.Join(words, " ")
}

func formatCommunity(c uint32) string { return fmt.Sprintf("%d:%d", c>>16, c&0xffff) }

func formatLargeCommunity(c [3]uint32) string { return fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]) }

// canonical is a copy of the attributes in the form in which the table lists
// them: sorted, each community once.
func (a Attributes) canonical() Attributes {
	a.Communities = canonicalList(a.Communities, cmp.Compare[uint32])
	a.LargeCommunities = canonicalList(a.LargeCommunities, func(x, y [3]uint32) int { return slices.Compare(x[:], y[:]) })
	a.MED, a.LocalPreference, a.Prepend = copied(a.MED), copied(a.LocalPreference), copied(a.Prepend)
	return a
}

func canonicalList[T comparable](list []T, compare func(T, T) int) []T {
	if list == nil {
		return nil
	}
	sorted := append(make([]T, 0, len(list)), list...)
	slices.SortFunc(sorted, compare)
	// Without room at the end, what GoBGP appends cannot end up in a list that
	// several paths share.
	return slices.Clip(slices.Compact(sorted))
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// validate tells what a peer could not be sent.
func (a Attributes) validate() error {
	switch {
	case slices.ContainsFunc(a.LargeCommunities, isTag):
		return fmt.Errorf("large communities with %d or %d in the middle are lb4d's own", FingerprintTag, RouterTag)
	case a.LocalPreference != nil && *a.LocalPreference == 0:
		// GoBGP's export policy takes it for none at all.
		return fmt.Errorf("local preference 0 is not possible")
	case a.Prepend != nil && (*a.Prepend < 0 || *a.Prepend > MaxPrepend):
		return fmt.Errorf("prepending %d times is not between 0 and %d", *a.Prepend, MaxPrepend)
	case a.NextHop4.IsValid() && (!a.NextHop4.Is4() || !usable(a.NextHop4)):
		return fmt.Errorf("%s is no IPv4 next hop", a.NextHop4)
	case a.NextHop6.IsValid() && (!a.NextHop6.Is6() || a.NextHop6.Is4In6() || !usable(a.NextHop6)):
		return fmt.Errorf("%s is no IPv6 next hop", a.NextHop6)
	}
	return nil
}

// nextHop is the next hop that is set for routes to an address; invalid where
// none is.
func (a Attributes) nextHop(to netip.Addr) netip.Addr {
	if to.Is4() {
		return a.NextHop4
	}
	return a.NextHop6
}
