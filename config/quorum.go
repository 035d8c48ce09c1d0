package config

import (
	"strconv"
	"strings"
)

// quorums are the two edges of a service: how many members it takes to go on
// forwarding, and how many to begin again. The pool is nil where the service
// has none.
func (s *serviceChecker) quorums(r *rawService, pool *checkedPool) (quorum, restore Quorum) {
	faults := len(s.faults)
	quorum = s.quorum(r.quorum, pool)
	if !r.quorumRestore.number.ok && !r.quorumRestore.text.ok {
		return quorum, quorum
	}
	restore = s.quorum(r.quorumRestore, pool)
	if len(s.faults) == faults {
		s.edges(r, quorum, restore, pool)
	}
	return quorum, restore
}

// edges tells of a quorum_restore below the quorum: the service would come
// back only to go again.
func (s *serviceChecker) edges(r *rawService, quorum, restore Quorum, pool *checkedPool) {
	at, line := r.quorumRestore.place(), r.quorum.place().line
	less := func() {
		s.fault(at, "%s is less than the quorum of %s in line %d; write at least %[2]s, or leave the key out", restore, quorum, line)
	}
	switch {
	case quorum.Percent > 0 && restore.Percent > 0:
		if restore.Percent < quorum.Percent {
			less()
		}
	case quorum.Percent == 0 && restore.Percent == 0:
		if restore.Members < quorum.Members {
			less()
		}
	case pool != nil && pool.size > 0 && restore.Of(pool.size) < quorum.Of(pool.size):
		s.fault(at, "%s of the %d members of pool %s means %d, and the quorum of %s in line %d means %d; write at least %[7]d, or leave the key out",
			restore, pool.size, pool.Name, restore.Of(pool.size), quorum, line, quorum.Of(pool.size))
	}
}

// place is where the value stands.
func (t share) place() place {
	if t.number.present {
		return t.number.place
	}
	return t.text.place
}

// quorum reads 2 or "50%". The pool is nil where the service has none.
func (s *serviceChecker) quorum(t share, pool *checkedPool) Quorum {
	switch {
	case t.number.ok:
		n := t.number.value
		switch {
		case n < 1:
			s.fault(t.number.place, `%d is less than 1; write how many members must be up, such as 1 or "50%%"`, n)
		case pool != nil && pool.size > 0 && n > int64(pool.size):
			s.fault(t.number.place, "%d can never be up, because pool %s has %d; write at most %d", n, pool.Name, pool.size, pool.size)
		}
		return Quorum{Members: int(min(n, maxMembers))}
	case t.text.ok:
		digits, found := strings.CutSuffix(t.text.value, "%")
		n, err := strconv.ParseUint(digits, 10, 8)
		if !found || err != nil || n < 1 || n > 100 {
			s.fault(t.text.place, `%s is not a quorum; write a number of members, such as 1, or a percentage from "1%%" to "100%%"`, quote(t.text.value))
			break
		}
		return Quorum{Percent: int(n)}
	}
	return Quorum{Members: defaultQuorum}
}
