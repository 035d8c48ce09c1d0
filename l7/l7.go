// Package l7 keeps the servers of a HAProxy back end equal to its share of a
// slot record, without ever reloading HAProxy.
//
// Diff is pure: it turns (what HAProxy lists, what is wanted) into commands,
// none where the two agree. Applier lists, sends the difference through the
// Runtime API (package runtime) and reads back. Include writes the same share
// as server lines of a configuration file, so that a HAProxy that starts or
// reloads begins where the last one was.
//
// What is wanted comes from package slots, and is kept where several hosts
// agree on it by package store.
package l7

import (
	"fmt"
	"strconv"
	"strings"

	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// Numbered finds the servers that are slots: those named prefix and a number,
// s1 to s10 where the configuration says "server-template s 1-10". Where
// prefix is empty it is the one that most servers share.
func Numbered(servers []runtime.Server, prefix string) (map[int]runtime.Server, error) {
	families := map[string]map[int]runtime.Server{}
	for _, s := range servers {
		base := strings.TrimRight(s.Name, "0123456789")
		digits := s.Name[len(base):]
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || n > slots.MaxSlots || digits[0] == '0' {
			continue
		}
		if families[base] == nil {
			families[base] = map[int]runtime.Server{}
		}
		families[base][n] = s
	}
	if prefix != "" {
		if families[prefix] == nil {
			return nil, fmt.Errorf("finding the slots: no server is named %s and a number", prefix)
		}
		return families[prefix], nil
	}
	best, size, twice := "", 0, ""
	for base, f := range families {
		switch {
		case len(f) > size:
			best, size, twice = base, len(f), ""
		case len(f) == size:
			twice = base
		}
	}
	switch {
	case size == 0:
		return nil, fmt.Errorf("finding the slots: none of %d servers has a name that ends in its number", len(servers))
	case twice != "":
		return nil, fmt.Errorf("finding the slots: %d servers are named %s and a number, and as many %s: say which", size, min(best, twice), max(best, twice))
	}
	return families[best], nil
}

// Passing are the servers of the share whose checks pass, or that have none.
func Passing(servers map[int]runtime.Server, wanted []slots.Slot) []slots.Passing {
	var passing []slots.Passing
	for _, w := range wanted {
		s, ok := servers[w.Number]
		// A draining server is known to be up only where it was ready before.
		if ok && w.State != slots.Free && s.Addr == w.Addr && s.State == runtime.Ready && s.Running && (s.Checked || !s.HasCheck) {
			passing = append(passing, slots.Passing{Slot: w.Number, Addr: w.Addr})
		}
	}
	return passing
}
