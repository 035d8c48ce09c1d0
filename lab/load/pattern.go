package load

// The headers that servers and proxies sign an answer with.
const (
	// headerLB7 names the LB7 host that passed the answer on.
	headerLB7 = "X-LB7"
	// headerServer names the server that gave the answer.
	headerServer = "X-Server"
	// headerPattern says that the body is the pattern, which the client
	// then compares byte by byte.
	headerPattern = "X-Pattern"
)

// patternPeriod is odd, so that a lost or doubled piece of any usual size, a
// power of two, shows.
const patternPeriod = 251

// fill writes the pattern as it is at an offset of a body.
func fill(b []byte, offset int64) {
	for i := range b {
		b[i] = patternAt(offset + int64(i))
	}
}

// matches tells whether b is the pattern at an offset.
func matches(b []byte, offset int64) bool {
	for i, c := range b {
		if c != patternAt(offset+int64(i)) {
			return false
		}
	}
	return true
}

func patternAt(i int64) byte { return byte(i % patternPeriod) }
