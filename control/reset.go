package control

import "context"

// ResetRequest is the body of POST /v1/reset: forget how often the checks of a
// VIP have failed, so that nothing holds it back.
type ResetRequest struct {
	// VIP is its address; empty: all of them.
	VIP string `json:"vip,omitempty"`
}

// ResetAnswer tells what has come of it.
type ResetAnswer struct {
	Host string `json:"host"`
	// Reset counts the VIPs of which failures were remembered.
	Reset int `json:"reset"`
	// VIPs are those, and the one that was asked for, as the status shows them
	// now.
	VIPs []VIP `json:"vips"`
	// Errors are the operations that failed in the pass after it.
	Errors []string `json:"errors,omitempty"`
}

// Reset has the daemon forget. A *Refusal says that there is no such VIP.
func (c *Client) Reset(ctx context.Context, r ResetRequest) (*ResetAnswer, error) {
	return question[ResetAnswer](ctx, c, "/v1/reset", r)
}
