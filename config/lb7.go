package config

import (
	"net/netip"
	"strings"
	"time"
)

// LB7 is a complete and validated configuration of lb7d. A part whose table is
// not in the file is nil, or has no entries, and is off.
type LB7 struct {
	// StateDir holds what must survive a restart.
	StateDir string

	Control    Control
	HTTP       HTTP
	Tunnel     *Tunnel
	AgentCheck *AgentCheck
	HAProxy    *HAProxy // not nil where there are back ends
	Store      Store
	Backends   []Backend // sorted by name

	Directories []Directory // sorted by name
}

// Backend finds a back end by its name.
func (c *LB7) Backend(name string) (Backend, bool) {
	for _, b := range c.Backends {
		if b.Name == name {
			return b, true
		}
	}
	return Backend{}, false
}

// AgentCheck answers HAProxy's agent checks out of a file.
type AgentCheck struct {
	File   string
	Listen []netip.AddrPort
}

// HAProxy is the process beside lb7d.
type HAProxy struct {
	// Socket of the Runtime API: an absolute path, or IP:PORT.
	Socket string
	// Process goes before each command on a master socket, as in "@1"; empty:
	// it is a stats socket.
	Process string
	// Timeout bounds the wait for each reply.
	Timeout time.Duration
	// StateMap is the map file in which HAProxy finds the agent check's word
	// for this host; empty: none is kept.
	StateMap string
}

// StoreKind is where the slot records are.
type StoreKind string

// The stores.
const (
	StoreFile     StoreKind = "file"
	StoreEtcd     StoreKind = "etcd"
	StoreDynamoDB StoreKind = "dynamodb"
)

// Store keeps the slot records.
type Store struct {
	Kind StoreKind
	// Lease is how long the right to ask the source lasts unless it is
	// renewed.
	Lease time.Duration

	// Endpoints, Prefix, Username, Password and CAFile are those of etcd.
	Endpoints         []string
	Prefix            string
	Username          string
	Password          Secret
	CAFile            string // empty: the system's authorities
	CertFile, KeyFile string // the client's certificate, or empty
	Region, Endpoint  string // of DynamoDB; empty: the SDK's own
	Poll              time.Duration
	HSDOPort          uint16 // the port of servers taken over from HSDO's rows
}

// Backend is one HAProxy back end.
type Backend struct {
	Name string
	// SlotsOf is the back end whose record this one shares; empty: it has one
	// of its own, and what follows up to Table.
	SlotsOf string
	Slots   int
	Source  Source
	// Weight of a server whose source has none, when fully ramped.
	Weight int
	Ramp   Ramp
	// MaxShrink, in percent, and ShrinkAfter say which lists are held back,
	// and for how long.
	MaxShrink   int
	ShrinkAfter time.Duration
	// SlotRest is how long a freed slot stays empty.
	SlotRest time.Duration
	// Table is DynamoDB's.
	Table string

	// Groups are those whose servers it takes; none: any.
	Groups []string
	// Fallback takes the servers of the record that no other back end names by
	// its Groups; with All, every one.
	Fallback, All bool
	// Prefix of the servers' names in HAProxy; empty: it is found out.
	Prefix string
	// Include is the configuration file kept for HAProxy's next start, or nil.
	Include *Include
}

// Record is the name of the back end whose slots it has.
func (b Backend) Record() string {
	if b.SlotsOf != "" {
		return b.SlotsOf
	}
	return b.Name
}

// Ramp lets a new server's weight grow from From by Step each Every, up to the
// back end's Weight or its own. Every 0: no ramp.
type Ramp struct {
	From, Step int
	Every      time.Duration
}

// Include is a file with server lines for HAProxy's next start.
type Include struct {
	File string
	// Head opens the section: "backend servers from servers-defaults".
	Head string
	// Options end each server line: "check inter 1s".
	Options string
}

// Source is where the servers of a back end come from: exactly one of its
// fields is not nil.
type Source struct {
	File   *FileSource
	HTTP   *HTTPSource
	DNS    *DNSSource
	AWS    *AWSSource
	Consul *ConsulSource
}

// FileSource is a file in the form of Prometheus's file_sd.
type FileSource struct{ Path string }

// HTTPSource is an endpoint in the form of Prometheus's http_sd.
type HTTPSource struct {
	URL                     string
	Interval, Timeout, Wait time.Duration
	TokenFile               string
}

// DNSSource is the SRV records of a name.
type DNSSource struct {
	Name           string
	Servers        []netip.AddrPort
	Family         int // 4, 6, or 0 for either
	MinTTL, MaxTTL time.Duration
	Timeout        time.Duration
}

// AWSSource is the instances of Auto Scaling groups.
type AWSSource struct {
	Groups            []string
	Port              uint16
	Region, Endpoint  string
	Interval, Timeout time.Duration
}

// ConsulSource is a service in Consul.
type ConsulSource struct {
	Service, URL, Datacenter, Tag string
	Wait, Timeout                 time.Duration
	TokenFile                     string
}

// Parts names the parts that are on, for the log.
func (c *LB7) Parts() string {
	var parts []string
	for _, p := range []struct {
		name string
		on   bool
	}{
		{"tunnel", c.Tunnel != nil},
		{"agent_check", c.AgentCheck != nil},
		{"haproxy", c.HAProxy != nil},
		{"backend", len(c.Backends) > 0},
		{"directory", len(c.Directories) > 0},
	} {
		if p.on {
			parts = append(parts, p.name)
		}
	}
	return strings.Join(parts, " ")
}
