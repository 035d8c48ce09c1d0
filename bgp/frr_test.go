package bgp

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const frrPrograms = "/usr/lib/frr/"

// frr is FRR at the other end of an interface: bgpd, and zebra, from which it
// knows interfaces and through which it sets routes.
type frr struct{ *neighbour }

// startFRR starts FRR with a configuration of bgpd.
func startFRR(t *testing.T, config string, here, there []string) *frr {
	t.Helper()
	return startFRRWith(t, false, config, here, there)
}

// startFRRWith starts FRR, with its BFD daemon or without.
func startFRRWith(t *testing.T, bfd bool, config string, here, there []string) *frr {
	t.Helper()
	need(t, "FRR (package frr)", frrPrograms+"zebra", frrPrograms+"bgpd", "vtysh")
	f := &frr{startNeighbour(t, here, there)}
	// Both give root up.
	owner, err := user.Lookup("frr")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(f.dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	common := func(program, config string) []string {
		return []string{"-f", f.write(t, program+".conf", config), "-i", f.path(program + ".pid"),
			"-z", f.path("zserv"), "--vty_socket", f.dir, "--log", "stdout", "--log-level", "debug"}
	}
	f.start(t, frrPrograms+"zebra", common("zebra", "")...)
	f.answers(t, "zebra", "show interface", there...)
	if bfd {
		f.start(t, frrPrograms+"bfdd", append(common("bfdd", ""), "--bfdctl", f.path("bfdd.sock"))...)
		f.answers(t, "bfdd", "show bfd peers json", "[")
	}
	f.start(t, frrPrograms+"bgpd", common("bgpd", `
debug bgp updates in
router bgp `+config)...)
	f.answers(t, "bgpd", "show bgp summary json", "peers")
	return f
}

// answers waits until a daemon answers with all of what is wanted.
func (f *frr) answers(t *testing.T, daemon, command string, wanted ...string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		out, err := f.ask(daemon, command)
		for _, want := range wanted {
			if !strings.Contains(out, want) {
				return false, fmt.Sprintf("%s: %s: no %q (%v):\n%s", daemon, command, want, err, out)
			}
		}
		return true, ""
	})
}

func (f *frr) ask(daemon, command string) (string, error) {
	return f.run("vtysh", "--vty_socket", f.dir, "-d", daemon, "-c", command)
}

// everything is bgpd's table.
func (f *frr) everything(t *testing.T) []string {
	t.Helper()
	var lines []seen
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := f.ask("bgpd", "show bgp "+family+" unicast json detail")
		if err != nil {
			t.Fatal(err)
		}
		type list struct {
			String string `json:"string"`
		}
		var table struct {
			Routes map[string][]struct {
				ASPath    list    `json:"aspath"`
				MED       *uint32 `json:"metric"`
				Pref      *uint32 `json:"locPrf"`
				Community list    `json:"community"`
				Large     list    `json:"largeCommunity"`
				Nexthops  []struct {
					IP string `json:"ip"`
				} `json:"nexthops"`
			} `json:"routes"`
		}
		if err := json.Unmarshal([]byte(out), &table); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		for prefix, paths := range table.Routes {
			for _, p := range paths {
				if len(p.Nexthops) == 0 {
					continue // the first one tells of the prefix
				}
				r := seen{prefix: prefix, hop: p.Nexthops[0].IP}
				if p.ASPath.String != "Local" {
					r.path = p.ASPath.String
				}
				if p.MED != nil {
					r.med = fmt.Sprint(*p.MED)
				}
				if p.Pref != nil {
					r.pref = fmt.Sprint(*p.Pref)
				}
				communities := strings.ReplaceAll(p.Community.String, "graceful-shutdown", "65535:0")
				r.communities = append(strings.Fields(communities), strings.Fields(p.Large.String)...)
				lines = append(lines, r)
			}
		}
	}
	return shown(lines)
}

var (
	frrWithdrawn = regexp.MustCompile(`rcvd UPDATE about (\S+) .*-- withdrawn`)
	// A route that bgpd took away and has again, sooner than it told anybody.
	frrFlapped = regexp.MustCompile(`rcvd (\S+) .*, flapped quicker than processing`)
)

// withdrawn are the prefixes that were withdrawn so far.
func (f *frr) withdrawn(t *testing.T) []string {
	t.Helper()
	log, err := os.ReadFile(f.path("bgpd.out"))
	if err != nil {
		t.Fatal(err)
	}
	return append(first(frrWithdrawn, string(log)), first(frrFlapped, string(log))...)
}

// counts are the sizes of the two tables.
func (f *frr) counts(t *testing.T) (v4, v6 int) {
	t.Helper()
	count := func(family string) int {
		out, err := f.ask("bgpd", "show bgp "+family+" unicast summary json")
		if err != nil {
			t.Fatal(err)
		}
		var summary struct {
			Peers map[string]struct {
				Received int `json:"pfxRcd"`
			} `json:"peers"`
		}
		if err := json.Unmarshal([]byte(out), &summary); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		n := 0
		for _, p := range summary.Peers {
			n += p.Received
		}
		return n
	}
	return count("ipv4"), count("ipv6")
}
