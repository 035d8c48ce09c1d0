// Package slots decides which server has which slot of a HAProxy back end.
//
// Consistent hashing places a server by its number, so two HAProxys agree on
// every key only while each server has the same number on both, and a key
// stays where it is only while its server keeps its number. Hence the Record:
// slots 1 to N and who has them, shared by all hosts through a store and
// changed by compare-and-swap only.
//
// All here is pure: (record, list of servers, time, policy) to another record
// and what to tell of it. Assign takes a list from a source; Advance moves
// ramps on without one; Pass notes a server's first passing check; Confirm
// accepts a list that was held back; View cuts out one back end's share.
package slots

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// MaxSlots bounds the slots of a record. At some 300 bytes for each, a record
// fits the 1.5 MB that etcd takes in one value.
const MaxSlots = 4096

// MaxWeight is the greatest weight of a server, HAProxy's own bound.
const MaxWeight = 256

// NoWeight is the weight of a server whose source has none for it: the
// policy's serves.
const NoWeight = -1

// Server is one server as a source lists it. Nothing in it has been checked.
type Server struct {
	// ID tells the server from every other for as long as it lives: an
	// instance's number, or its address and port where there is none better.
	ID string
	// Name is for people.
	Name string
	Addr netip.Addr
	Port int
	// Group and Zone select a back end's share; see Filter.
	Group, Zone string
	// Weight when fully ramped, 0 to MaxWeight, or NoWeight.
	Weight int
	// Exclude drains the server and keeps its slot.
	Exclude bool
}

// State is what a slot's server is meant to do.
type State string

const (
	// Free: no server has the slot.
	Free State = "free"
	// Ready: the server takes traffic while its checks pass.
	Ready State = "ready"
	// Drain: the server takes no new traffic.
	Drain State = "drain"
)

// Record is who has which slot. A Record is not changed once made: the
// functions of this package return others.
type Record struct {
	// Version is the store's: it grows with each write, and is 0 for a record
	// that no store has.
	Version uint64 `json:"version"`
	// Slots in order; the slot of number n is Slots[n-1].
	Slots []Slot `json:"slots"`
	// Listed counts the servers of the last list that was not held back.
	Listed int `json:"listed"`
	// Held is the list that is held back, or nil.
	Held *Held `json:"held,omitempty"`
}

// Slot is one place of the back end, and its server unless it is Free.
type Slot struct {
	Number int   `json:"number"`
	State  State `json:"state"`

	ID    string         `json:"id,omitempty"`
	Name  string         `json:"name,omitempty"`
	Addr  netip.AddrPort `json:"addr,omitzero"`
	Group string         `json:"group,omitempty"`
	Zone  string         `json:"zone,omitempty"`

	// Weight now, and Full when the ramp has ended.
	Weight int `json:"weight,omitempty"`
	Full   int `json:"full,omitempty"`

	// Since is when the server got the slot, or another address, or changed
	// between Ready and Drain.
	Since time.Time `json:"since,omitzero"`
	// PassedAt is when the server's first passing check was seen; zero before
	// that.
	PassedAt time.Time `json:"passed_at,omitzero"`
	// RampedAt is when the weight last grew, or began to: the ramp's progress.
	RampedAt time.Time `json:"ramped_at,omitzero"`

	// FreedAt is when the last server left, and Last is its ID; only in a
	// Free slot.
	FreedAt time.Time `json:"freed_at,omitzero"`
	Last    string    `json:"last,omitempty"`
}

// Held tells of a list that shrank too much to be believed at once.
type Held struct {
	// Since is when it was first seen; the policy's Persist counts from here.
	Since time.Time `json:"since"`
	// Size of the list, Missing servers that have slots and are not in it.
	Size    int `json:"size"`
	Missing int `json:"missing"`
	// Confirmed tells that an operator accepts it.
	Confirmed bool `json:"confirmed,omitempty"`
}

// Policy is how slots are given.
type Policy struct {
	// Slots is how many there are, 1 to MaxSlots.
	Slots int
	// Rest is how long a freed slot stays empty before another server gets
	// it, so that what still goes on with the last one ends first.
	Rest time.Duration
	// MaxShrink is by how many percent a list may shrink in one step; one
	// that shrinks by more, or becomes empty, is held back. 100: only empty
	// ones are.
	MaxShrink int
	// Persist is how long a list that is held back has to last until it is
	// believed; 0: it is believed at once.
	Persist time.Duration
	// Weight is that of a server whose source has none, when fully ramped.
	Weight int
	// Ramp is how a new server's weight grows to its full one.
	Ramp Ramp
}

// Ramp lets a weight grow from From by Step each Every, beginning at the
// server's first passing check. Every 0: no ramp.
type Ramp struct {
	From, Step int
	Every      time.Duration
}

// start is the weight of a server that has just come.
func (r Ramp) start(full int) int {
	if r.Every <= 0 {
		return full
	}
	return min(r.From, full)
}

// Occupied is how many slots have a server.
func (r Record) Occupied() int {
	n := 0
	for _, s := range r.Slots {
		if s.State != Free {
			n++
		}
	}
	return n
}

// clone makes a record that can be changed.
func (r Record) clone() Record {
	r.Slots = slices.Clone(r.Slots)
	if r.Held != nil {
		held := *r.Held
		r.Held = &held
	}
	return r
}

// Equal tells whether two records say the same, their versions aside.
func (r Record) Equal(o Record) bool {
	return r.Listed == o.Listed && slices.Equal(r.Slots, o.Slots) &&
		(r.Held == nil) == (o.Held == nil) && (r.Held == nil || *r.Held == *o.Held)
}

// Check refuses a record that this package would not have made: a store can be
// written by others, and what it says goes to HAProxy.
func (r Record) Check() error {
	if len(r.Slots) > MaxSlots {
		return fmt.Errorf("checking the slot record: %d slots, more than %d", len(r.Slots), MaxSlots)
	}
	ids, addrs := map[string]int{}, map[netip.AddrPort]int{}
	for i, s := range r.Slots {
		err := s.check(i + 1)
		switch {
		case err != nil:
		case s.State == Free:
		case ids[s.ID] != 0:
			err = fmt.Errorf("server %q has slot %d too", s.ID, ids[s.ID])
		case addrs[s.Addr] != 0:
			err = fmt.Errorf("address %s has slot %d too", s.Addr, addrs[s.Addr])
		default:
			ids[s.ID], addrs[s.Addr] = i+1, i+1
		}
		if err != nil {
			return fmt.Errorf("checking the slot record: slot %d: %w", i+1, err)
		}
	}
	return nil
}

// check refuses a slot that is not what it should be.
func (s Slot) check(number int) error {
	switch {
	case s.Number != number:
		return fmt.Errorf("it has number %d", s.Number)
	case s.State == Free:
		if s.ID != "" || s.Addr.IsValid() {
			return fmt.Errorf("it is free and has server %q at %s", clip(s.ID), s.Addr)
		}
		if err := checkText(s.Last); err != nil {
			return fmt.Errorf("its last server %w", err)
		}
		return nil
	case s.State != Ready && s.State != Drain:
		return fmt.Errorf("state %q is none of free, ready, drain", clip(string(s.State)))
	case s.Weight < 0 || s.Weight > MaxWeight || s.Full < 0 || s.Full > MaxWeight:
		return fmt.Errorf("weight %d of %d is not in 0 to %d", s.Weight, s.Full, MaxWeight)
	}
	at, err := check(Server{ID: s.ID, Name: s.Name, Addr: s.Addr.Addr(), Port: int(s.Addr.Port()), Group: s.Group, Zone: s.Zone, Weight: s.Full})
	if err == nil && at != s.Addr {
		err = fmt.Errorf("address %s stands for %s", s.Addr, at)
	}
	return err
}
