package control

import (
	"context"
	"time"
)

// DisableRequest is the body of POST /v1/disable: write the maintenance file of
// the host, or that of a service.
type DisableRequest struct {
	// Service is the service's name; empty: the host.
	Service string `json:"service,omitempty"`
	// Reason is the operator's, at most 200 bytes that print; it may be empty.
	Reason string `json:"reason,omitempty"`
	// Seconds is after how long the file ceases to count; 0: never.
	Seconds float64 `json:"seconds,omitempty"`
	// By is who asks, as far as lbctl knows.
	By string `json:"by,omitempty"`
	// Force disables also where no other host announces one of the VIPs.
	Force bool `json:"force,omitempty"`
}

// EnableRequest is the body of POST /v1/enable: remove that file.
type EnableRequest struct {
	// Service as in DisableRequest.
	Service string `json:"service,omitempty"`
}

// DisableAnswer tells what has become of either request.
type DisableAnswer struct {
	Host string `json:"host"`
	// Path is the file.
	Path string `json:"path"`
	// Was tells that the file was there before, and WasReason what it said.
	Was       bool   `json:"was"`
	WasReason string `json:"was_reason,omitempty"`
	// Disabled tells that it is there now, with what Reason and Until say.
	Disabled bool      `json:"disabled"`
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	// VIPs are those that it is about, as the status shows them now.
	VIPs []VIP `json:"vips"`
	// Warnings tell what else the operator should know.
	Warnings []string `json:"warnings,omitempty"`
	// Errors are the operations that failed in the pass after it.
	Errors []string `json:"errors,omitempty"`
}

// Disable writes the file. A *Refusal with status 403 says that the daemon may
// not write it.
func (c *Client) Disable(ctx context.Context, r DisableRequest) (*DisableAnswer, error) {
	return question[DisableAnswer](ctx, c, "/v1/disable", r)
}

// Enable removes it, as Disable writes it.
func (c *Client) Enable(ctx context.Context, r EnableRequest) (*DisableAnswer, error) {
	return question[DisableAnswer](ctx, c, "/v1/enable", r)
}
