package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The defaults of lb7d.toml, each of them with its reason in
// reference-lb7d.toml.
const (
	defaultLB7Socket      = "/run/lb/lb7d.sock"
	defaultAgentFile      = "/etc/lb/agent-check"
	defaultAgentListen    = "127.0.0.1:5555"
	defaultHAProxySocket  = "/run/haproxy/admin.sock"
	defaultHAProxyTimeout = 5 * time.Second
)

// maxAgentListeners bounds the addresses of the agent check.
const maxAgentListeners = 64

// LoadLB7 reads and validates the lb7d.toml at path and the password file that
// it names, as Load does for lb4d.
func LoadLB7(path string) (*LB7, error) {
	c := &checker{file: path}
	data, err := read(path, maxFile)
	if err != nil {
		c.fault(place{}, "%s", unreadable(err))
		return nil, c.err()
	}
	if len(data) > maxFile {
		c.fault(place{}, "is larger than %d MiB; a configuration never is, so name the right file with -config", maxFile>>20)
		return nil, c.err()
	}
	return ParseLB7(path, data)
}

// ParseLB7 validates a configuration of lb7d that has been read already, as
// Parse does for lb4d.
func ParseLB7(name string, data []byte) (*LB7, error) {
	c := &checker{file: name}
	root, ok := c.document(data)
	if !ok {
		return nil, c.err()
	}
	var raw rawLB7
	section{&raw}.take(c, root, place{line: 1}, "")
	cfg := c.lb7(&raw)
	if err := c.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// lb7 validates a whole file, part by part.
func (c *checker) lb7(raw *rawLB7) *LB7 {
	raw.stateDir.value = strings.TrimSuffix(raw.stateDir.value, "/")
	cfg := &LB7{
		StateDir: c.filePath(raw.stateDir, defaultStateDir, maxPath),
		Control: Control{
			Socket: c.filePath(raw.control.socket, defaultLB7Socket, maxSocket),
			Group:  c.group(raw.control.group),
		},
		HTTP: HTTP{Listen: c.listen(raw.http.listen)},
	}
	if raw.tunnel.ok {
		cfg.Tunnel = c.tunnel(&raw.tunnel)
	}
	if raw.agentCheck.ok {
		cfg.AgentCheck = c.agentCheck(&raw.agentCheck)
	}
	if raw.haproxy.ok {
		cfg.HAProxy = c.haproxy(&raw.haproxy)
	}
	cfg.Store = c.store(raw)
	cfg.Backends = c.backends(raw, cfg.Store.Kind)
	cfg.Directories = c.directories(raw, cfg.HAProxy)
	if len(raw.backends.entries) > 0 && !raw.haproxy.present {
		c.fault(raw.backends.entries[0].place, `there is no HAProxy to give servers to; write [haproxy] with socket = %q`, defaultHAProxySocket)
	}
	if cfg.HAProxy != nil && cfg.HAProxy.StateMap != "" && cfg.AgentCheck == nil && !raw.agentCheck.present {
		c.fault(raw.haproxy.stateMap.place, "there is no agent check whose word it could hold; write [agent_check], or leave the key out")
	}
	return cfg
}

// agentCheck validates [agent_check].
func (c *checker) agentCheck(r *rawAgentCheck) *AgentCheck {
	a := &AgentCheck{File: c.filePath(r.file, defaultAgentFile, maxPath)}
	if !r.listen.present {
		a.Listen = []netip.AddrPort{netip.MustParseAddrPort(defaultAgentListen)}
		return a
	}
	if r.listen.ok && len(r.listen.values) == 0 {
		c.fault(r.listen.place, `the list is empty; write an address and port such as [%q]`, defaultAgentListen)
	}
	if len(r.listen.values) > maxAgentListeners {
		c.fault(r.listen.place, "there are %d addresses; write at most %d", len(r.listen.values), maxAgentListeners)
		return a
	}
	a.Listen = c.addrPorts(r.listen, defaultAgentListen)
	return a
}

// addrPorts are addresses with ports, each once.
func (c *checker) addrPorts(t texts, example string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, one := range t.values {
		if !one.ok {
			continue
		}
		at, err := netip.ParseAddrPort(one.value)
		switch {
		case err != nil:
			c.fault(one.place, `%s is not an address and a port; write it as %q or "[::1]:%d"`, quote(one.value), example, netip.MustParseAddrPort(example).Port())
		case at.Port() == 0:
			c.fault(one.place, "%s has port 0; write a number from 1 to 65535", quote(one.value))
		case at.Addr().Is4In6():
			c.fault(one.place, "%s is an IPv4 address written as an IPv6 one; write %q", quote(one.value), netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
		case slices.Contains(all, at):
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			all = append(all, at)
		}
	}
	return all
}

// masterProcess is what may name a worker behind a master socket.
var masterProcess = regexp.MustCompile(`^@(?:[0-9]{1,5}|![0-9]{1,10})$`)

// haproxy validates [haproxy].
func (c *checker) haproxy(r *rawHAProxy) *HAProxy {
	h := &HAProxy{
		Socket:   defaultHAProxySocket,
		Timeout:  c.duration(r.timeout, defaultHAProxyTimeout, 100*time.Millisecond, time.Minute),
		StateMap: c.filePath(r.stateMap, "", maxPath),
	}
	if r.socket.ok {
		if at, err := netip.ParseAddrPort(r.socket.value); err == nil {
			if at.Port() == 0 {
				c.fault(r.socket.place, "%s has port 0; write a number from 1 to 65535", quote(r.socket.value))
			}
			h.Socket = r.socket.value
		} else if strings.HasPrefix(r.socket.value, "/") {
			h.Socket = c.filePath(r.socket, defaultHAProxySocket, maxSocket)
		} else {
			c.fault(r.socket.place, `%s is neither an absolute path nor an address and a port; write the path of HAProxy's stats socket, such as %q`, quote(r.socket.value), defaultHAProxySocket)
		}
	}
	if r.process.ok {
		if !masterProcess.MatchString(r.process.value) {
			c.fault(r.process.place, `%s names no process; write "@1" for the present worker behind a master socket, or leave the key out for a stats socket`, quote(r.process.value))
		}
		h.Process = r.process.value
	}
	return h
}

// word is a text of graphic ASCII without what could end a word elsewhere, or
// empty. What says what it should be.
func (c *checker) word(t text, what string) string {
	if !t.ok {
		return ""
	}
	bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(";\\\"'`#<>", r) }
	switch {
	case t.value == "":
		c.fault(t.place, "is empty; write %s, or leave the key out", what)
	case strings.ContainsFunc(t.value, bad):
		c.fault(t.place, "%s holds a character that cannot stand there; write %s", quote(t.value), what)
	case len(t.value) > 255:
		c.fault(t.place, "has %d characters; write at most 255", len(t.value))
	}
	return t.value
}

// url is an http or https URL, or fallback where the key is left out.
func (c *checker) url(t text, fallback, example string) string {
	if !t.ok {
		return fallback
	}
	if fault := badURL(t.value); fault != "" {
		c.fault(t.place, "%s; write one such as %s", fault, example)
	}
	return t.value
}

// misplaced tells of keys that another choice leaves without a meaning.
func (c *checker) misplaced(because string, keys ...given) {
	for _, k := range keys {
		if k.present {
			c.fault(k.place, "%s; leave the key out", fmt.Sprintf("has no meaning %s", because))
		}
	}
}
