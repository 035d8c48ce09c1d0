package bgp

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// gobgpd is Debian's GoBGP, of a version before the one that is embedded here,
// at the other end of an interface.
type gobgpd struct {
	*neighbour
	monitor string // what it says of changes of its table
}

// startGobgpd starts gobgpd with a configuration.
func startGobgpd(t *testing.T, config string, here, there []string) *gobgpd {
	t.Helper()
	need(t, "GoBGP (package gobgpd)", "gobgpd", "gobgp")
	g := &gobgpd{neighbour: startNeighbour(t, here, there)}
	g.start(t, "gobgpd", "-f", g.write(t, "gobgpd.toml", config), "--log-level", "info")
	eventually(t, func() (bool, string) {
		_, err := g.run("gobgp", "neighbor")
		return err == nil, fmt.Sprint(err)
	})
	g.monitor = g.start(t, "gobgp", "monitor", "global", "rib", "-j")
	return g
}

// gobgpPath is a path as gobgp prints it.
type gobgpPath struct {
	NLRI struct {
		Prefix string `json:"prefix"`
	} `json:"nlri"`
	Attributes []struct {
		Type    int    `json:"type"`
		Nexthop string `json:"nexthop"`
		Metric  uint32 `json:"metric"`
		ASPaths []struct {
			ASNs []uint32 `json:"asns"`
		} `json:"as_paths"`
		Communities []uint32        `json:"communities"`
		Value       json.RawMessage `json:"value"`
	} `json:"attrs"`
	Withdrawal bool `json:"withdrawal"`
}

// everything is gobgpd's table.
func (g *gobgpd) everything(t *testing.T) []string {
	t.Helper()
	var lines []seen
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := g.run("gobgp", "global", "rib", "-a", family, "-j")
		if err != nil {
			t.Fatal(err)
		}
		var table map[string][]gobgpPath
		if err := json.Unmarshal([]byte(out), &table); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		for prefix, paths := range table {
			for _, p := range paths {
				r := seen{prefix: prefix}
				for _, a := range p.Attributes {
					switch a.Type {
					case 2:
						for _, s := range a.ASPaths {
							r.path = strings.Trim(fmt.Sprint(s.ASNs), "[]")
						}
					case 3, 14:
						r.hop = a.Nexthop
					case 4:
						r.med = fmt.Sprint(a.Metric)
					case 5:
						r.pref = string(a.Value)
					case 8:
						for _, c := range a.Communities {
							r.communities = append(r.communities, formatCommunity(c))
						}
					case 32:
						var large []struct{ ASN, LocalData1, LocalData2 uint32 }
						if err := json.Unmarshal(a.Value, &large); err != nil {
							t.Fatalf("%v in %s", err, a.Value)
						}
						for _, c := range large {
							r.communities = append(r.communities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
						}
					}
				}
				lines = append(lines, r)
			}
		}
	}
	return shown(lines)
}

// withdrawn are the prefixes that were withdrawn so far.
func (g *gobgpd) withdrawn(t *testing.T) []string {
	t.Helper()
	file, err := os.Open(g.monitor)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []string
	decoder := json.NewDecoder(file)
	for {
		var paths []gobgpPath
		if err := decoder.Decode(&paths); err != nil {
			return all // what was written so far
		}
		for _, p := range paths {
			if p.Withdrawal {
				all = append(all, p.NLRI.Prefix)
			}
		}
	}
}

// counts are the sizes of the two tables.
func (g *gobgpd) counts(t *testing.T) (v4, v6 int) {
	t.Helper()
	count := func(family string) int {
		out, err := g.run("gobgp", "global", "rib", "summary", "-a", family)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(out, "Destination: ")
		n, _, _ := strings.Cut(after, ",")
		count, err := strconv.Atoi(n)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return count
	}
	return count("ipv4"), count("ipv6")
}
