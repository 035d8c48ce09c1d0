package config

import (
	"math"
	"slices"
	"strings"
	"time"
)

const (
	minInterval = 100 * time.Millisecond
	maxInterval = time.Hour
	minTimeout  = 10 * time.Millisecond
	// A start waits for every first answer, and the service manager does not
	// wait for ever for a start.
	maxTimeout = 30 * time.Second
	// maxRun bounds rise and fall.
	maxRun = 100
	// maxRequest bounds the path of a check, in bytes, so that every server
	// takes the request.
	maxRequest = 1024
	maxHost    = 255
	// minMTU is what every link that carries IPv6 has room for (RFC 8200
	// section 5); maxMTU is the largest in use.
	minMTU, maxMTU = 1280, 9216
)

// check validates [pool.NAME.check].
func (c *checker) check(pool *rawPool) Check {
	r := &pool.check
	if !r.ok {
		if !r.present {
			at := pool.child("check")
			c.fault(at, `the table is missing; write [%s] with http = "/healthcheck", or with tcp = true and port = 80`, at.key)
		}
		return Check{}
	}
	k := Check{
		HTTP: c.httpPath(r.http),
		Host: c.host(r.host),
		Rise: int(c.integer(r.rise, defaultRise, 1, maxRun)),
		Fall: int(c.integer(r.fall, defaultFall, 1, maxRun)),
	}
	k.Interval, k.Timeout = c.rhythm(r)
	c.way(r, &k)

	http, tcp := r.http.present, r.tcp.present && (!r.tcp.ok || r.tcp.value)
	switch {
	case http && tcp:
		c.fault(r.tcp.place, "there is http = in line %d too, and a check is one or the other; leave one of them out", r.http.line)
	case !http && !tcp:
		c.fault(r.place, `neither says http nor tcp; write http = "/healthcheck", or tcp = true and port = 80`)
	case http:
		c.statuses(r, &k)
		k.Port = uint16(c.integer(r.port, defaultHTTPPort, 1, math.MaxUint16))
	case tcp:
		for _, t := range []given{r.host.given, r.expectStatus.given, r.drainStatus.given} {
			if t.present {
				c.fault(t.place, "a check with tcp = true asks for no page; leave the key out, or write http = instead of tcp")
			}
		}
		if !r.port.present {
			c.fault(r.child("port"), "is missing; write the port that the check connects to, such as port = 80")
		}
		k.Port = uint16(c.integer(r.port, 0, 1, math.MaxUint16))
	}
	return k
}

// way is how the check gets to a member, and what goes with that.
func (c *checker) way(r *rawCheck, k *Check) {
	k.Via = Via(c.choose(r.via, paths))
	k.MTU = int(c.integer(r.mtu, defaultMTU, minMTU, maxMTU))
	k.MTURequired = r.mtuRequired.ok && r.mtuRequired.value
	if k.Via != ViaDirect {
		return
	}
	const no = `with via = "direct" in line %d the check does not go through the tunnel, and nothing is found out of its MTU; leave the key out`
	if r.mtu.present {
		c.fault(r.mtu.place, no, r.via.line)
	}
	if k.MTURequired {
		c.fault(r.mtuRequired.place, no, r.via.line)
	}
}

// marks is the first of the firewall marks of the checks through the tunnel,
// which have to be enough for all of them.
func (c *checker) marks(raw *rawFile, pools checkedPools) uint32 {
	const last = math.MaxUint32 - CheckMarks + 1
	n := 0
	for _, p := range pools {
		if p.Check.Via != ViaTunnel {
			continue
		}
		// One for the VIPs of each family.
		n += 2 * len(p.Members)
	}
	if n > CheckMarks {
		c.fault(raw.pools.place, `the members take up to %d checks through the tunnel, and there are marks for %d; write via = "direct" in some of the pools`, n, CheckMarks)
	}
	return uint32(c.integer(raw.checkMark, defaultCheckMark, 1, last))
}

// rhythm is how often the check is made, and how long its answer may take:
// never longer than until the next one begins.
func (c *checker) rhythm(r *rawCheck) (interval, timeout time.Duration) {
	interval, sure := c.tryDuration(r.interval, defaultInterval, minInterval, maxInterval)
	if !r.timeout.present {
		// A short interval alone must not be a fault of a key that is not
		// there.
		if interval < defaultTimeout {
			return interval, interval / 2
		}
		return interval, defaultTimeout
	}
	timeout, ok := c.tryDuration(r.timeout, defaultTimeout, minTimeout, maxTimeout)
	if sure && ok && timeout > interval {
		c.fault(r.timeout.place, "%s is longer than the interval of %s; write at most %q", quote(r.timeout.value), spell(interval), spell(interval))
	}
	return interval, timeout
}

// httpPath is the target of a GET request, which goes into the request as it
// is.
func (c *checker) httpPath(t text) string {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }
	switch {
	case !t.ok:
	case !strings.HasPrefix(t.value, "/"):
		c.fault(t.place, `%s is not a path; write one that begins with /, such as "/healthcheck"`, quote(t.value))
	case strings.ContainsFunc(t.value, bad):
		i := strings.IndexFunc(t.value, bad)
		c.fault(t.place, "%s holds a character that cannot stand in a request, at byte %d; write it as %%%02X", quote(t.value), i+1, t.value[i])
	case len(t.value) > maxRequest:
		c.fault(t.place, "the path has %d bytes; write at most %d", len(t.value), maxRequest)
	}
	return t.value
}

// host is the value of a Host header.
func (c *checker) host(t text) string {
	if t.ok && (t.value == "" || len(t.value) > maxHost || strings.Trim(t.value, letters+digits+".-_:[]") != "") {
		c.fault(t.place, `%s is not a host; write a name such as "www.example.com", or leave the key out for the address`, quote(t.value))
	}
	return t.value
}

// statuses are those that mean up and those that mean draining; none means
// both.
func (c *checker) statuses(r *rawCheck, k *Check) {
	k.ExpectStatus = c.statusList(r.expectStatus, defaultExpectStatus)
	k.DrainStatus = c.statusList(r.drainStatus, defaultDrainStatus)
	if r.expectStatus.ok && len(r.expectStatus.values) == 0 {
		c.fault(r.expectStatus.place, "the list is empty, so nothing would ever be up; write one such as [200]")
	}
	for i, status := range k.DrainStatus {
		if !slices.Contains(k.ExpectStatus, status) {
			continue
		}
		if r.drainStatus.present {
			c.fault(r.drainStatus.values[i].place, "%d is in expect_status too; leave one of them out", status)
		} else {
			c.fault(r.expectStatus.place, "%d is in drain_status, whose default is [%d]; leave it out, or write drain_status = []", status, status)
		}
	}
}

func (c *checker) statusList(t numbers, fallback int) []int {
	if !t.present {
		return []int{fallback}
	}
	var list []int
	for _, one := range t.values {
		switch {
		case one.ok && (one.value < 100 || one.value > 599):
			c.fault(one.place, "%d is not an HTTP status; write 100 to 599", one.value)
		case one.ok && slices.Contains(list, int(one.value)):
			c.fault(one.place, "%d is in the list twice; leave one of them out", one.value)
		}
		list = append(list, int(one.value))
	}
	return list
}
