package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Status is what lab status shows.
type Status struct {
	Hosts []HostStatus `json:"hosts"`
	// Routes are those to the service addresses, by router.
	Routes map[string]Routes `json:"routes"`
}

// HostStatus is one host of a Status.
type HostStatus struct {
	Name      string          `json:"name"`
	Role      Role            `json:"role"`
	Address   netip.Addr      `json:"address,omitzero"`
	Address6  netip.Addr      `json:"address6,omitzero"`
	Processes []ProcessStatus `json:"processes,omitempty"`
}

// Status tells how the lab is.
func (l *Lab) Status() (Status, error) {
	st := Status{Routes: make(map[string]Routes)}
	processes := l.Processes()
	for _, h := range l.Topology.Hosts {
		hs := HostStatus{Name: h.Name, Role: h.Role, Address: h.Address, Address6: h.Address6}
		for _, p := range processes {
			if p.Host == h.Name {
				hs.Processes = append(hs.Processes, p)
			}
		}
		st.Hosts = append(st.Hosts, hs)
		if h.Role == RoleRouter {
			routes, err := l.Routes(h.Name)
			if err != nil {
				return st, err
			}
			st.Routes[h.Name] = routes
		}
	}
	return st, nil
}

func (l *Lab) writeStatus(w io.Writer, asJSON bool) error {
	st, err := l.Status()
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	names := make(map[netip.Addr]string)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "HOST\tROLE\tADDRESS\tPROCESSES")
	for _, h := range st.Hosts {
		address := h.Address
		if !address.IsValid() {
			address = h.Address6
		}
		names[h.Address], names[h.Address6] = h.Name, h.Name
		var words []string
		for _, p := range h.Processes {
			words = append(words, p.words(time.Now()))
		}
		fmt.Fprintf(tw, "%s\t%s\t%v\t%s\n", h.Name, h.Role, address, strings.Join(words, "; "))
	}
	fmt.Fprintln(tw, "\t\t\t")
	fmt.Fprintln(tw, "ROUTER\tSERVICE ADDRESS\tTHROUGH\t")
	for _, h := range l.Topology.ByRole(RoleRouter) {
		for _, v := range l.Topology.VIPs {
			through := "nobody"
			if hops := st.Routes[h.Name][v]; len(hops) > 0 {
				var hosts []string
				for _, hop := range hops {
					hosts = append(hosts, names[hop])
				}
				through = strings.Join(hosts, " ")
			}
			fmt.Fprintf(tw, "%s\t%v\t%s\t\n", h.Name, v, through)
		}
	}
	return tw.Flush()
}

// words are a process in the list of hosts.
func (p ProcessStatus) words(now time.Time) string {
	switch {
	case p.Running && p.PID != 0:
		return fmt.Sprintf("%s (pid %d, for %s)", p.Name, p.PID, now.Sub(p.Started).Round(time.Second))
	case p.Running:
		return p.Name
	}
	return fmt.Sprintf("%s NOT RUNNING: %s", p.Name, p.Outcome)
}

// writeLogs writes what one or all processes of a host have logged.
func (l *Lab) writeLogs(w io.Writer, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return fmt.Errorf("logs needs a host and at most one process")
	}
	host := args[0]
	if _, err := l.place(host); err != nil {
		return err
	}
	if len(args) == 2 {
		p, _, err := l.find(host, args[1])
		if err != nil {
			return err
		}
		if p == nil {
			return fmt.Errorf("%s on %s is the lab's own and logs nothing", args[1], host)
		}
		return p.log.copyTo(w)
	}
	for _, p := range l.programs[host] {
		fmt.Fprintf(w, "== %s\n", p.name)
		if err := p.log.copyTo(w); err != nil {
			return err
		}
	}
	return nil
}

// control starts, stops or signals a process.
func (l *Lab) control(verb string, args []string, sig syscall.Signal) error {
	if len(args) != 2 {
		return fmt.Errorf("%s needs a host and a process", verb)
	}
	host, process := args[0], args[1]
	switch verb {
	case "start":
		return l.Start(host, process)
	case "stop":
		return l.Stop(host, process)
	case "restart":
		return l.Restart(host, process)
	}
	return l.Kill(host, process, sig)
}
