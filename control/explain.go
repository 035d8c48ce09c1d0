package control

import "context"

// ExplainRequest is the body of POST /v1/explain: where does a flow go?
type ExplainRequest struct {
	// Client is the flow's source, 203.0.113.7:40000 or [2001:db8::7]:40000.
	Client string `json:"client"`
	// Service is its destination, 198.51.100.1:80 or [2001:db8::1]:53/udp; tcp
	// where no protocol is named.
	Service string `json:"service"`
}

// ExplainAnswer tells where this host sends the flow if it is new to it, and
// why.
type ExplainAnswer struct {
	Host    string `json:"host"`
	Client  string `json:"client"`
	Service string `json:"service"` // with its protocol
	// Name and Pool are the service's in the configuration.
	Name string `json:"name"`
	Pool string `json:"pool"`
	// Fingerprint is that of the table that was looked into.
	Fingerprint string `json:"fingerprint"`
	// Slot is where the flow's hash points, of Slots from 0 on.
	Slot  int `json:"slot"`
	Slots int `json:"slots"`
	// Owner has that slot; nil: no member has slots.
	Owner *Destination `json:"owner,omitempty"`
	// Used gets the flow; nil: the kernel refuses it.
	Used *Destination `json:"used,omitempty"`
	// Rehashes counts how often the flow was hashed again until it met a
	// member that takes new flows.
	Rehashes int `json:"rehashes"`
	// Reason is why the flow goes where it does, or nowhere, in a sentence.
	Reason string `json:"reason"`
	// Kept is what the table does not say.
	Kept string `json:"kept"`
	// VIPState and VIPReason are those of the status: whether routers send
	// such flows to this host at all.
	VIPState  string `json:"vip_state"`
	VIPReason string `json:"vip_reason"`
}

// Destination is a member as the kernel has it behind one service.
type Destination struct {
	// Member is its name; empty where the configuration does not have it.
	Member  string `json:"member,omitempty"`
	Address string `json:"address"` // with the port
	// Weight is what the kernel has now, 0: no new flows. FullWeight is that
	// by which the member has its slots.
	Weight     int `json:"weight"`
	FullWeight int `json:"full_weight"`
	// State is unknown, up, draining or down; empty where the configuration
	// does not have the member.
	State string `json:"state,omitempty"`
	// Reason is why the member is in that state.
	Reason string `json:"reason"`
}

// Explain asks the daemon where a flow goes. A *Refusal says why it cannot be
// told.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (*ExplainAnswer, error) {
	return question[ExplainAnswer](ctx, c, "/v1/explain", r)
}
