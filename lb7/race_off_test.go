//go:build !race

package lb7

// slowed is how many times slower the race detector makes things.
const slowed = 1
