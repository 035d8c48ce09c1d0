package bgp

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// bird is a BIRD at the other end of an interface.
type bird struct{ *neighbour }

// startBird starts BIRD with a configuration, here and there being the
// addresses of the two ends of the link.
func startBird(t *testing.T, config string, here, there []string) *bird {
	t.Helper()
	need(t, "BIRD 2 (package bird2)", "bird")
	b := &bird{startNeighbour(t, here, there)}
	b.write(t, "bird.conf", fmt.Sprintf(`
log %q all;
debug protocols { states, routes };
router id 192.0.2.254;
protocol device { }
`, b.log())+config)
	b.start(t, "bird", "-f", "-c", b.path("bird.conf"), "-s", b.path("ctl"), "-P", b.path("pid"))
	t.Cleanup(func() { b.show(t, b.log()) })
	// It drops routes whose next hop it has no address to reach from.
	eventually(t, func() (bool, string) {
		interfaces, err := b.ask("show interfaces")
		for _, a := range there {
			if !strings.Contains(interfaces, a) {
				return false, fmt.Sprintf("BIRD does not see %s (%v):\n%s", a, err, interfaces)
			}
		}
		return true, ""
	})
	return b
}

func (b *bird) log() string { return b.path("log") }

// ask puts a question to BIRD.
func (b *bird) ask(command string) (string, error) {
	conn, err := net.Dial("unix", b.path("ctl"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\n", command); err != nil {
		return "", err
	}
	// A reply ends with a line "CODE text", CODE not being followed by "-".
	// The greeting is one such line too.
	var reply strings.Builder
	end := regexp.MustCompile(`(?m)^[0-9]{4} .*\n`)
	buf := make([]byte, 64<<10)
	for len(end.FindAllString(reply.String(), -1)) < 2 {
		n, err := conn.Read(buf)
		if err != nil {
			return reply.String(), err
		}
		reply.Write(buf[:n])
	}
	return reply.String(), nil
}

var (
	birdRoute     = regexp.MustCompile(`^(?:\d{4}-| )?([0-9a-f.:]+/\d+)? +unicast`)
	birdCommunity = regexp.MustCompile(`\(([0-9, ]+)\)`)
)

// table is the routes that a protocol of BIRD's brought in, of all where it is
// empty, one line each, sorted.
func (b *bird) table(t *testing.T, protocol string) []string {
	t.Helper()
	var lines []seen
	for _, table := range []string{"master4", "master6"} {
		command := fmt.Sprintf("show route table %s all", table)
		if protocol != "" {
			command += " protocol " + protocol
		}
		reply, err := b.ask(command)
		if err != nil {
			t.Fatal(err)
		}
		prefix := "" // told once for all paths
		for line := range strings.Lines(reply) {
			if m := birdRoute.FindStringSubmatch(line); m != nil {
				prefix = cmp.Or(m[1], prefix)
				lines = append(lines, seen{prefix: prefix})
				continue
			}
			if len(lines) == 0 {
				continue
			}
			r := &lines[len(lines)-1]
			name, value, _ := strings.Cut(strings.TrimLeft(line, "0123456789- \t"), ":")
			value = strings.TrimSpace(value)
			switch name {
			case "BGP.as_path":
				r.path = value
			case "BGP.local_pref":
				r.pref = value
			case "BGP.med":
				r.med = value
			case "BGP.next_hop":
				r.hop, _, _ = strings.Cut(value, " ")
			case "BGP.community", "BGP.large_community":
				for _, m := range birdCommunity.FindAllStringSubmatch(value, -1) {
					r.communities = append(r.communities, strings.ReplaceAll(strings.ReplaceAll(m[1], " ", ""), ",", ":"))
				}
			}
		}
	}
	return shown(lines)
}

func (b *bird) await(t *testing.T, protocol string, want ...string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		diff := gocmp.Diff(want, b.table(t, protocol))
		return diff == "", "routes of BIRD protocol " + protocol + " (-want +got):\n" + diff
	})
}

var (
	birdChange  = regexp.MustCompile(`(\w+\.ipv[46]) > (\w+)`)
	birdRemoved = regexp.MustCompile(`> removed \[[^\]]*\] (\S+)`)
)

// told is what BIRD's log says happened to prefixes, and by which protocol.
// What it told it forgets.
func (b *bird) told(t *testing.T) []string {
	t.Helper()
	var told []string
	for _, m := range birdChange.FindAllStringSubmatch(b.logged(t), -1) {
		told = append(told, m[1]+" "+m[2])
	}
	if err := os.Truncate(b.log(), 0); err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	return told
}

func (b *bird) logged(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(b.log())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// withdrawn are the prefixes that were withdrawn so far.
func (b *bird) withdrawn(t *testing.T) []string {
	t.Helper()
	return first(birdRemoved, b.logged(t))
}

// everything is the table of all protocols.
func (b *bird) everything(t *testing.T) []string { return b.table(t, "") }

var birdCount = regexp.MustCompile(`(\d+) of \d+ routes for \d+ networks in table (master[46])`)

// counts are the sizes of the two tables.
func (b *bird) counts(t *testing.T) (v4, v6 int) {
	t.Helper()
	reply, err := b.ask("show route count")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range birdCount.FindAllStringSubmatch(reply, -1) {
		n, _ := strconv.Atoi(m[1])
		if m[2] == "master4" {
			v4 = n
		} else {
			v6 = n
		}
	}
	return v4, v6
}
