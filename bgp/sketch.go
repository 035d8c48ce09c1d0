package bgp

import (
	"hash/maphash"
	"math"
)

// sketchBits is the size of a sketch, in bits: 32 kB serve to tell a million
// prefixes within some percent.
const sketchBits = 1 << 18

// sketch counts distinct things without keeping them, by linear counting
// (Whang, Vander-Zanden and Taylor 1990). Its zero value is ready.
type sketch struct {
	seed maphash.Seed
	bits []uint64
	set  int
}

// add takes one thing in, and reports whether the count changed.
func (s *sketch) add(b []byte) bool {
	if s.bits == nil {
		s.seed, s.bits = maphash.MakeSeed(), make([]uint64, sketchBits/64)
	}
	h := maphash.Bytes(s.seed, b) % sketchBits
	if s.bits[h/64]&(1<<(h%64)) != 0 {
		return false
	}
	s.bits[h/64] |= 1 << (h % 64)
	s.set++
	return true
}

// count is about how many different things there were.
func (s *sketch) count() float64 {
	if s.set == sketchBits {
		return math.Inf(1)
	}
	return -sketchBits * math.Log1p(-float64(s.set)/sketchBits)
}
