package l4

import "math/bits"

// slotKey and skipKey are the two keys of the kernel's Maglev tables
// (ip_vs_mh.c, generate_hash_secret), each of which fills both halves of a
// hash's key.
const (
	slotKey = 2654435761
	skipKey = 2654446892
)

// hsiphash is the kernel's hsiphash of one 32-bit number on a 64-bit machine,
// where it is SipHash-1-3, cut to its lower 32 bits (lib/siphash.c,
// hsiphash_1u32).
func hsiphash(v uint32, key uint64) uint32 {
	v0 := 0x736f6d6570736575 ^ key
	v1 := 0x646f72616e646f6d ^ key
	v2 := 0x6c7967656e657261 ^ key
	v3 := 0x7465646279746573 ^ key
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := 4<<56 | uint64(v) // the length, and the number itself
	v3 ^= last
	round()
	v0 ^= last
	v2 ^= 0xff
	round()
	round()
	round()
	return uint32(v0 ^ v1 ^ v2 ^ v3)
}
