package control

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// DefaultLB7Socket is where lb7d listens, and lbctl asks where there is no lb4d.
const DefaultLB7Socket = "/run/lb/lb7d.sock"

// LB7Status is all that lb7d tells of itself, as GET /v1/status answers it on
// its socket. Parts that are off are left out.
type LB7Status struct {
	// Program is "lb7d"; the status of lb4d has no such field.
	Program string    `json:"program"`
	Version string    `json:"version"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	// State is starting, running or stopping.
	State string `json:"state"`
	// Summary is one sentence, the same that systemctl status shows.
	Summary string     `json:"summary"`
	Config  ConfigFile `json:"config"`

	Tunnel     *Tunnel     `json:"tunnel,omitempty"`
	AgentCheck *AgentCheck `json:"agent_check,omitempty"`
	HAProxy    *HAProxy    `json:"haproxy,omitempty"`
	Records    []Record    `json:"records"`
	Backends   []Backend   `json:"backends"`

	Directories []Directory `json:"directories,omitempty"`

	// Errors are what is not as it should be; each is tried again.
	Errors   []string    `json:"errors,omitempty"`
	Counters LB7Counters `json:"counters"`
}

// AgentCheck tells what HAProxy is answered about this host.
type AgentCheck struct {
	File   string   `json:"file"`
	Listen []string `json:"listen"`
	// Answer is the line that is answered now.
	Answer string `json:"answer"`
	// Source is where it is from: file, default (there is no file), last good
	// (the file is not understood) or nothing.
	Source string `json:"source"`
	// Serving tells that the answer takes new work.
	Serving bool      `json:"serving"`
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since"`
	// Fault is why the file is not understood.
	Fault     string `json:"fault,omitempty"`
	Questions uint64 `json:"questions"`
	Faults    uint64 `json:"faults"`
}

// HAProxy tells of the HAProxy beside lb7d.
type HAProxy struct {
	Socket  string `json:"socket"`
	Running bool   `json:"running"`
	// Error is why it does not answer.
	Error   string    `json:"error,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"` // the start of the process
	// Sessions are those going on at its frontends.
	Sessions int `json:"sessions"`
	// Restarts counts the processes that were seen to follow another.
	Restarts uint64 `json:"restarts"`
}

// Record is what is known of one slot record, and of the source behind it.
type Record struct {
	Name  string `json:"name"`
	Store string `json:"store"`
	// Version of the record; 0: none is known yet.
	Version uint64 `json:"version"`
	// StoreError is why the record may be out of date, or cannot be written.
	StoreError string `json:"store_error,omitempty"`
	// Holder is who asks the source; Held, that it is this host.
	Holder string `json:"holder,omitempty"`
	Held   bool   `json:"held"`

	Source string `json:"source"`
	// Listed counts the servers of the last list, At is when the source gave
	// or confirmed it; both only while Held.
	Listed int       `json:"listed"`
	At     time.Time `json:"at,omitzero"`
	// SourceError is why the source fails, since FailingSince.
	SourceError  string    `json:"source_error,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Failures     uint64    `json:"failures"`
	// Refused are entries that cannot be servers, each with its reason; the
	// first 32 of RefusedTotal.
	Refused      []string `json:"refused,omitempty"`
	RefusedTotal int      `json:"refused_total"`

	Slots int `json:"slots"`
	Used  int `json:"used"`
	// Overflow are servers without a slot, Waiting those that get one when it
	// has rested.
	Overflow []string `json:"overflow,omitempty"`
	Waiting  []string `json:"waiting,omitempty"`
	// HeldBack is the list that is not believed yet; nil: none.
	HeldBack *HeldBack `json:"held_back,omitempty"`
}

// HeldBack is a list that shrank too much to be believed at once.
type HeldBack struct {
	Since   time.Time `json:"since"`
	Size    int       `json:"size"`
	Missing int       `json:"missing"`
	// Until is when it is believed unless the source thinks better of it.
	Until     time.Time `json:"until"`
	Confirmed bool      `json:"confirmed"`
}

// Backend is one HAProxy back end.
type Backend struct {
	Name   string `json:"name"`
	Record string `json:"record"`
	// Takes says which servers of the record are its: "all", "groups a b",
	// "the rest".
	Takes string `json:"takes"`
	// Error is why HAProxy could not be given the servers.
	Error    string    `json:"error,omitempty"`
	Problems []string  `json:"problems,omitempty"`
	Applied  time.Time `json:"applied,omitzero"` // last success
	// IncludeError is why the include file is not what it should be.
	IncludeError string       `json:"include_error,omitempty"`
	Servers      []SlotServer `json:"servers"`
	// Commands sent to HAProxy, those of them that failed, and slots put right
	// that somebody else had changed.
	Sent       uint64 `json:"sent"`
	Failed     uint64 `json:"failed"`
	Repaired   uint64 `json:"repaired"`
	LastMicros int64  `json:"last_apply_us"`
}

// SlotServer is one slot that has a server.
type SlotServer struct {
	Slot    int    `json:"slot"`
	ID      string `json:"id"`
	Name    string `json:"name"` // in HAProxy
	Address string `json:"address"`
	Group   string `json:"group,omitempty"`
	Zone    string `json:"zone,omitempty"`
	// WantedState is ready or drain; State is HAProxy's: ready, drain or
	// maint; empty: not known.
	WantedState string `json:"wanted_state"`
	State       string `json:"state,omitempty"`
	Running     bool   `json:"running"`
	// WantedWeight is that of now, FullWeight that at the end of the ramp, and
	// Weight HAProxy's.
	WantedWeight int       `json:"wanted_weight"`
	FullWeight   int       `json:"full_weight"`
	Weight       int       `json:"weight"`
	Since        time.Time `json:"since"`
	PassedAt     time.Time `json:"passed_at,omitzero"`
	// HeldByAgent is what the server's own agent does instead of what is
	// wanted.
	HeldByAgent string `json:"held_by_agent,omitempty"`
}

// LB7Counters count since the start of the process.
type LB7Counters struct {
	Reloads       uint64 `json:"reloads"`
	ReloadsFailed uint64 `json:"reloads_failed"`
}

// Alive is nil while lb7d is at work, as for lb4d.
func (st *LB7Status) Alive(now time.Time) error {
	switch age := now.Sub(st.Updated); {
	case st.State != "running":
		return fmt.Errorf("%s: %s", st.State, strings.TrimPrefix(oneLine(st.Summary), st.State+": "))
	case age > StaleAfter:
		return fmt.Errorf("stuck: nothing was done for %s; the last said: %s", age.Truncate(time.Second), oneLine(st.Summary))
	}
	return nil
}

func (st *LB7Status) summary() string { return st.Summary }

// withoutNull is a copy in which every list is one.
func (st *LB7Status) withoutNull() *LB7Status {
	out := *st
	if st.Tunnel != nil {
		t := *st.Tunnel
		t.Devices = list(t.Devices)
		out.Tunnel = &t
	}
	out.Records = list(st.Records)
	out.Backends = list(st.Backends)
	for i := range out.Backends {
		out.Backends[i].Servers = list(out.Backends[i].Servers)
	}
	return &out
}

// PublishLB7 makes st what everything here shows from now on, as Publish does.
func (s *Server) PublishLB7(st *LB7Status) {
	if st == nil {
		return
	}
	st = st.withoutNull()
	s.latest.Store(newSnapshot(st, func(e emitter) { e.lb7(st) }))
}

// startLB7 publishes what is known before lb7d is at work.
func (s *Server) startLB7(version string) {
	now := time.Now()
	st := &LB7Status{
		Program: "lb7d", Version: version, PID: os.Getpid(),
		Started: now, Updated: now,
		State: "starting", Summary: "starting: not every part has been at work yet",
	}
	st.Host, _ = os.Hostname()
	s.PublishLB7(st)
}

// LB7Requests are what lb7d does when asked on its socket. Each may be called
// from several goroutines at once; a *Refusal is told to the one who asked as it
// is.
type LB7Requests struct {
	// Drain and Undrain write the agent check's file, and tell how many
	// sessions HAProxy has left.
	Drain, Undrain func(context.Context, HostDrainRequest) (*HostDrainAnswer, error)
	// Sessions tells the same without writing anything.
	Sessions func(context.Context, SessionsRequest) (*HostDrainAnswer, error)
	// Confirm accepts a list that is held back.
	Confirm func(context.Context, ConfirmRequest) (*ConfirmAnswer, error)
	// DirectoryLookup tells where a host is, and asks the directory service
	// where that is not known; DirectoryForget forgets it.
	DirectoryLookup func(context.Context, DirectoryRequest) (*DirectoryAnswer, error)
	DirectoryForget func(context.Context, DirectoryRequest) (*DirectoryForgotten, error)
}

// HostDrainRequest is the body of POST /v1/host/drain and, empty, of POST
// /v1/host/undrain.
type HostDrainRequest struct {
	// Reason is the operator's; it may be empty.
	Reason string `json:"reason,omitempty"`
}

// SessionsRequest is the body of POST /v1/host/sessions.
type SessionsRequest struct{}

// HostDrainAnswer tells how things are after such a request.
type HostDrainAnswer struct {
	Host string `json:"host"`
	File string `json:"file"`
	// Changed is false where all was as wanted before.
	Changed bool `json:"changed"`
	// Answer is what HAProxy is answered from now on.
	Answer string `json:"answer"`
	// Sessions are those going on at HAProxy's frontends; -1: HAProxy cannot be
	// asked, for SessionsError.
	Sessions      int    `json:"sessions"`
	SessionsError string `json:"sessions_error,omitempty"`
}

// ConfirmRequest is the body of POST /v1/confirm.
type ConfirmRequest struct {
	Backend string `json:"backend"`
}

// ConfirmAnswer tells what was confirmed.
type ConfirmAnswer struct {
	Record   string   `json:"record"`
	HeldBack HeldBack `json:"held_back"`
}

// lb7Routes adds what lb7d does when asked.
func lb7Routes(mux *http.ServeMux, r *LB7Requests) {
	if r == nil {
		return
	}
	mux.HandleFunc("POST /v1/host/drain", serveQuestion(r.Drain))
	mux.HandleFunc("POST /v1/host/undrain", serveQuestion(r.Undrain))
	mux.HandleFunc("POST /v1/host/sessions", serveQuestion(r.Sessions))
	mux.HandleFunc("POST /v1/confirm", serveQuestion(r.Confirm))
	directoryRoutes(mux, r)
}

// HostDrain asks lb7d to drain its host.
func (c *Client) HostDrain(ctx context.Context, r HostDrainRequest) (*HostDrainAnswer, error) {
	return question[HostDrainAnswer](ctx, c, "/v1/host/drain", r)
}

// HostUndrain asks lb7d to end the drain of its host.
func (c *Client) HostUndrain(ctx context.Context, r HostDrainRequest) (*HostDrainAnswer, error) {
	return question[HostDrainAnswer](ctx, c, "/v1/host/undrain", r)
}

// Sessions asks lb7d how many sessions its HAProxy has.
func (c *Client) Sessions(ctx context.Context) (*HostDrainAnswer, error) {
	return question[HostDrainAnswer](ctx, c, "/v1/host/sessions", SessionsRequest{})
}

// Confirm asks lb7d to believe the list that it holds back for a back end.
func (c *Client) Confirm(ctx context.Context, r ConfirmRequest) (*ConfirmAnswer, error) {
	return question[ConfirmAnswer](ctx, c, "/v1/confirm", r)
}
