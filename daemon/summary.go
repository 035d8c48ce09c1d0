package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lb4d/control"
	"lb4d/health"
	"lb4d/plan"
)

// howMany is how many there are of something, in words.
func howMany(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// maxReasons bounds how many reasons the summary gives: each VIP has its own in
// the table below.
const maxReasons = 2

// fewReasons are the first of reasons, and how many there are besides.
func fewReasons(reasons []string) string {
	if more := len(reasons) - maxReasons; more > 0 {
		return fmt.Sprintf("%s; and for %d more reasons", strings.Join(reasons[:maxReasons], "; "), more)
	}
	return strings.Join(reasons, "; ")
}

// summary is the state of the daemon in one sentence.
func summary(st *control.Status, waiting int) string {
	if st.State == "starting" {
		return "starting: waiting for the first answer of " + howMany(waiting, "check")
	}
	announced, draining, established := 0, 0, 0
	up, drained, warned, why := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range st.VIPs {
		if v.Announced {
			announced++
		} else {
			why["withdrawn: "+v.Reason] = true
		}
		if v.State == plan.Draining.String() {
			draining++
			why["draining: "+v.Reason] = true
		}
	}
	for _, m := range st.Members {
		// A member is up where all its addresses are.
		name := m.Pool + "/" + m.Name
		if other, seen := up[name]; !seen || other {
			up[name] = m.State == health.Up.String()
		}
		if m.Drained != nil {
			drained[name] = true
		}
		if m.Warning != "" {
			warned[name] = true
		}
	}
	membersUp := 0
	for _, is := range up {
		if is {
			membersUp++
		}
	}
	for _, p := range st.Peers {
		if p.State == "established" {
			established++
		}
	}
	vips := fmt.Sprintf("%d of %d VIPs announced", announced, len(st.VIPs))
	if draining > 0 {
		vips += fmt.Sprintf(" (%d draining)", draining)
	}
	s := fmt.Sprintf("%s to %d of %d peers, %d of %d members up",
		vips, established, len(st.Peers), membersUp, len(up))
	if len(drained) > 0 {
		s += fmt.Sprintf(", %d drained by the operator", len(drained))
	}
	if len(warned) > 0 {
		s += fmt.Sprintf(", %d with a warning", len(warned))
	}
	if st.State == "stopping" {
		s = "stopping: " + s
	}
	if len(why) > 0 {
		s += "; " + fewReasons(slices.Sorted(maps.Keys(why)))
	}
	if st.Config.Error != "" {
		s += "; last reload refused"
	}
	if len(st.Errors) > 0 {
		s += "; " + howMany(len(st.Errors), "error")
	}
	return s
}
