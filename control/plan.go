package control

import "context"

// MaxConfig bounds the configuration of a PlanRequest, in bytes: that of a
// configuration file.
const MaxConfig = 1 << 20

// maxPlanBytes bounds the body of a PlanRequest: JSON writes a byte of text as
// six at most.
const maxPlanBytes = 6*MaxConfig + maxBodyBytes

// PlanRequest is the body of POST /v1/plan: what would a reload change if the
// configuration file were this one? Nothing is changed.
type PlanRequest struct {
	// Name is the file's, for the faults.
	Name string `json:"name"`
	// Config is the file's text, at most MaxConfig bytes. The password files
	// that it names are read by the daemon.
	Config string `json:"config"`
}

// PlanAnswer tells what a reload would change, in the order in which it would.
// Members that join, and those whose first check has not been answered, are
// taken to be up.
type PlanAnswer struct {
	Host string `json:"host"`
	// Refused tells that a reload would be refused and would change nothing:
	// for the Faults, and then there is nothing besides them, or for the
	// Restart. With the latter the rest is what a restart would change.
	Refused bool `json:"refused"`
	// Faults are those of the file, one line each.
	Faults []string `json:"faults,omitempty"`
	// Restart are the keys that cannot change in a running daemon, one line
	// each.
	Restart []string `json:"restart,omitempty"`
	// Settings are other changes, one line each.
	Settings []string `json:"settings,omitempty"`
	// Checks are the addresses that are checked from then on, no longer, or in
	// another way.
	Checks []Change `json:"checks,omitempty"`
	// VIPs are those whose route changes.
	VIPs []Change `json:"vips,omitempty"`
	// Operations are those on the kernel's table, in order: after withdrawals,
	// before announcements. MoreOperations counts those that are not listed.
	Operations     []string `json:"operations,omitempty"`
	MoreOperations int      `json:"more_operations,omitempty"`
	Peers          []Change `json:"peers,omitempty"`
	// Services are all VIPs and ports of both configurations.
	Services []ServiceChange `json:"services"`
}

// Change is one thing that would change.
type Change struct {
	What string `json:"what"` // an address, or a name and an address
	// Change is added, removed or changed; of a VIP, announced, draining,
	// withdrawn, changed, or removed where it was withdrawn already.
	Change string `json:"change"`
	Reason string `json:"reason,omitempty"`
}

// ServiceChange is what becomes of the flows to one VIP and port.
type ServiceChange struct {
	Service string `json:"service"` // 198.51.100.1:80/tcp
	// Change is none, added, removed or changed.
	Change string `json:"change"`
	// Moved is the share of all possible flows, from 0 to 1, that go to
	// another member than before, where this host does not carry them already;
	// nil: it cannot be told.
	Moved *float64 `json:"moved,omitempty"`
	// Error is why it cannot be told.
	Error string `json:"error,omitempty"`
}

// Plan asks the daemon what a reload would change. A *Refusal says why it
// cannot be told; that the configuration has faults is no refusal.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (*PlanAnswer, error) {
	return question[PlanAnswer](ctx, c, "/v1/plan", r)
}
