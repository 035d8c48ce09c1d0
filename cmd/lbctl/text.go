package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lb4d/control"
)

const (
	// maxListed bounds how many names a cell lists.
	maxListed = 3
	// maxDrained bounds how many drained members are told one by one above
	// the tables, and how many warnings.
	maxDrained = 8
)

// render is the status as people read it at three in the morning: what is
// wrong first, then the tables from the routers' side to the members'.
func render(st *control.Status, now time.Time, term terminal) string {
	p := &page{term: term, now: now}
	p.head(st)
	p.alerts(st)
	if st.State == "starting" && len(st.VIPs)+len(st.Services)+len(st.Members)+len(st.Peers) == 0 {
		return p.b.String() // tables of what is not known yet would only mislead
	}
	p.vips(st.VIPs)
	p.siblings(st.VIPs)
	p.services(st.Services)
	p.fingerprints(st.Services)
	p.members(st.Members)
	p.peers(st.Peers)
	return p.b.String()
}

type page struct {
	b    strings.Builder
	term terminal
	now  time.Time
}

// head tells who answers and how it is on the whole.
func (p *page) head(st *control.Status) {
	p.say(bold, "", fmt.Sprintf("lb4d %s on %s (pid %d), %s, up %s since %s",
		st.Version, st.Host, st.PID, st.State, p.since(st.Started), p.clock(st.Started)))
	p.say(plain, "", st.Summary)
	if st.Config.Error == "" && st.Config.Path != "" {
		p.say(plain, "", fmt.Sprintf("configuration %s, loaded %s ago", st.Config.Path, p.since(st.Config.Loaded)))
	}
}

// warnings tell what is wrong with members that are not down.
func (p *page) warnings(members []control.Member) {
	told, left := 0, 0
	for _, m := range members {
		switch {
		case m.Warning == "":
		case told < maxDrained:
			told++
			p.say(yellow, "WARNING", fmt.Sprintf("%s (%s) of pool %s: %s", m.Name, m.Address, m.Pool, m.Warning))
		default:
			left++
		}
	}
	if left > 0 {
		p.say(yellow, "WARNING", fmt.Sprintf("and %d more addresses of members", left))
	}
}

// say writes one paragraph, wrapped to the terminal.
func (p *page) say(colour sgr, label, s string) {
	s = printable(s)
	if label == "" {
		p.b.WriteString(p.term.paint(wrap(s, p.term.width, sentenceIndent), colour) + "\n")
		return
	}
	s = strings.TrimPrefix(wrap(label+" "+s, p.term.width, sentenceIndent), label)
	p.b.WriteString(p.term.paint(label, colour) + s + "\n")
}

// table writes t below a blank line, or that there is nothing in it.
func (p *page) table(what string, t table) {
	p.b.WriteByte('\n')
	if len(t.rows) == 0 {
		p.b.WriteString("no " + what + "\n")
		return
	}
	t.write(&p.b, p.term)
}

func (p *page) vips(vips []control.VIP) {
	t := table{header: []string{"VIP", "STATE", "FOR", "SERVICES", "WHY"}}
	// A column of its own only where a service has some.
	special := slices.ContainsFunc(vips, func(v control.VIP) bool { return v.Attributes != "" })
	if special {
		t.header = slices.Insert(t.header, len(t.header)-1, "ATTRIBUTES")
	}
	for _, v := range vips {
		row := []cell{text(v.Address), coloured(v.State, stateColour(v.State)), text(p.since(v.Since)),
			text(few(v.Services)), text(p.why(v))}
		if special {
			row = slices.Insert(row, len(row)-1, text(v.Attributes))
		}
		t.add(row...)
	}
	p.table("VIPs", t)
}

// why is a VIP's reason, with the time that is left where it is held down.
func (p *page) why(v control.VIP) string {
	if v.HeldUntil.After(p.now) {
		return fmt.Sprintf("%s (%s left)", v.Reason, duration(v.HeldUntil.Sub(p.now)))
	}
	return v.Reason
}

func (p *page) services(services []control.Service) {
	t := table{header: []string{"SERVICE", "FORWARDING", "FOR", "UP", "QUORUM", "POOL", "PORTS", "WHY"}}
	for _, s := range services {
		forwarding := coloured("no", red)
		if s.Forwarding {
			forwarding = coloured("yes", green)
		}
		t.add(text(s.Name), forwarding, text(p.since(s.Since)),
			number(fmt.Sprintf("%d/%d", s.Up, s.Members)), number(quorum(s)),
			text(s.Pool), text(few(s.Ports)), text(s.Reason))
	}
	p.table("services", t)
}

// fingerprints is one line for each Maglev table, so that the answers of two
// hosts can be laid side by side. There is no table of them where there are
// none.
func (p *page) fingerprints(services []control.Service) {
	t := table{header: []string{"FLOWS TO", "SERVICE", "FINGERPRINT"}}
	for _, s := range services {
		for _, m := range s.Tables {
			said := text(m.Fingerprint)
			if m.Fingerprint == "" {
				said = text("unknown: " + m.Error)
			}
			t.add(text(m.Service()), text(s.Name), said)
		}
	}
	if len(t.rows) > 0 {
		p.table("Maglev tables", t)
	}
}

// quorum is how many members a service needs, and how many more than that to
// come back.
func quorum(s control.Service) string {
	if s.QuorumRestore > s.Quorum {
		return fmt.Sprintf("%d, restore %d", s.Quorum, s.QuorumRestore)
	}
	return strconv.Itoa(s.Quorum)
}

func (p *page) members(members []control.Member) {
	t := table{header: []string{"MEMBER", "POOL", "ADDRESS", "STATE", "FOR", "WEIGHT", "ACTIVE", "INACTIVE", "LAST ANSWER"}}
	for _, m := range members {
		weight := strconv.Itoa(m.Weight)
		if m.Weight != m.ConfiguredWeight {
			weight += " of " + strconv.Itoa(m.ConfiguredWeight)
		}
		t.add(text(m.Name), text(m.Pool), text(m.Address), coloured(m.State, stateColour(m.State)), text(p.since(m.Since)),
			number(weight), number(strconv.Itoa(m.ActiveFlows)), number(strconv.Itoa(m.InactiveFlows)),
			text(p.answer(m)))
	}
	p.table("members", t)
}

// answer is a member's last answer, and why that makes it what it is where the
// answer alone does not tell.
func (p *page) answer(m control.Member) string {
	ago := ""
	if !m.LastCheck.IsZero() {
		ago = " (" + p.since(m.LastCheck) + " ago)"
	}
	said := m.LastAnswer + ago
	switch reason := strings.TrimPrefix(m.Reason, m.State+": "); {
	case m.State == "up" && m.LastAnswer != "", reason == "":
	case strings.Contains(reason, m.LastAnswer):
		said = reason + ago
	default:
		said += "; " + reason
	}
	if m.State == "draining" {
		said = flowsLeft(m) + "; " + said
	}
	return said
}

func (p *page) peers(peers []control.Peer) {
	t := table{header: []string{"PEER", "ADDRESS", "AS", "STATE", "FOR", "ROUTES", "LAST ERROR"}}
	special := slices.ContainsFunc(peers, func(p control.Peer) bool { return p.Attributes != "" })
	if special {
		t.header = slices.Insert(t.header, len(t.header)-1, "ATTRIBUTES")
	}
	asked := slices.ContainsFunc(peers, func(p control.Peer) bool { return p.GracefulRestartAsked > 0 })
	if asked {
		t.header = slices.Insert(t.header, len(t.header)-1, "AT A RESTART")
	}
	watched := slices.ContainsFunc(peers, func(p control.Peer) bool { return p.BFD != nil })
	if watched {
		t.header = slices.Insert(t.header, len(t.header)-1, "BFD")
	}
	for _, peer := range peers {
		row := []cell{text(peer.Name), text(peer.Address), number(strconv.FormatUint(uint64(peer.AS), 10)),
			coloured(peer.State, stateColour(peer.State)), text(p.since(peer.Since)),
			number(strconv.Itoa(peer.Advertised)), text(peer.LastError)}
		if special {
			row = slices.Insert(row, len(row)-1, text(peer.Attributes))
		}
		if asked {
			row = slices.Insert(row, len(row)-1, text(restart(peer)))
		}
		if watched {
			row = slices.Insert(row, len(row)-1, p.way(peer.BFD))
		}
		t.add(row...)
	}
	p.table("BGP peers", t)
}

// restart is what becomes of a peer's routes when lb4d restarts, as long as there
// is a session to tell.
func restart(p control.Peer) string {
	switch {
	case p.State != "established":
		return ""
	case p.GracefulRestart > 0:
		return fmt.Sprintf("kept %ds", p.GracefulRestart)
	}
	return "lost"
}

// stateColour is green for what is as it should be, red for what is not, and
// yellow for what is on its way from one to the other.
func stateColour(state string) sgr {
	switch state {
	case "announced", "up", "established":
		return green
	case "draining", "unknown", "connect", "active", "opensent", "openconfirm":
		return yellow
	}
	return red
}

// few lists the first of names and counts the others.
func few(names []string) string {
	if len(names) > maxListed {
		return fmt.Sprintf("%s +%d", strings.Join(names[:maxListed], " "), len(names)-maxListed)
	}
	return strings.Join(names, " ")
}

// clock is t in the reader's time zone.
func (p *page) clock(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.In(p.now.Location()).Format(time.DateTime)
}

// since is how long ago t was, in its two largest units.
func (p *page) since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration(p.now.Sub(t))
}

// duration is d in its two largest units: 12s, 3m12s, 4h3m, 3d4h.
func duration(d time.Duration) string {
	s := int64(max(0, d) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s%86400/3600)
}
