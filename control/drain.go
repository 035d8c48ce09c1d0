package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// changeTimeout bounds how long a request that changes something may take to
// be in effect. It is shorter than writeTimeout, so that what became of the
// request can still be said.
const changeTimeout = writeTimeout - 2*time.Second

// Drain is an operator's wish that a member get no new flows from this host.
type Drain struct {
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// DrainRequest is the body of POST /v1/drain and, with Member alone, of POST
// /v1/undrain.
type DrainRequest struct {
	// Member is the member's name; POOL/NAME where several pools have one of
	// that name.
	Member string `json:"member"`
	// Reason is the operator's, at most 200 bytes that print; it may be empty.
	Reason string `json:"reason,omitempty"`
	// Force drains the member also where a service ceases to forward by it,
	// or where that cannot be told yet.
	Force bool `json:"force,omitempty"`
}

// DrainAnswer tells how things are after a DrainRequest.
type DrainAnswer struct {
	Host   string `json:"host"`
	Pool   string `json:"pool"`
	Member string `json:"member"`
	// Changed is false where all was as wanted before.
	Changed bool `json:"changed"`
	// Was and Drained are the drain before and after; nil: there was none, or
	// is none.
	Was     *Drain `json:"was,omitempty"`
	Drained *Drain `json:"drained,omitempty"`
	// InEffect tells that the kernel's table was read afterwards and agrees: no
	// address of a drained member takes new flows.
	InEffect bool `json:"in_effect"`
	// Members are the member's addresses as the status shows them now, with
	// the flows that are left.
	Members []Member `json:"members"`
	// Warnings tell what else the operator should know, such as a service
	// that no longer forwards.
	Warnings []string `json:"warnings,omitempty"`
	// Errors are the operations that failed in the pass that carried it out;
	// they are tried again with each pass.
	Errors []string `json:"errors,omitempty"`
}

// Refusal is why a request was not carried out, in words for the one who asked.
type Refusal struct {
	// Status is the HTTP status that says it to programs: 400 for a request
	// that is wrong in itself, 404 for an unknown member, 409 for what needs
	// Force, 503 for what may be tried again, 500 for a fault of the daemon.
	Status int `json:"-"`
	// Reason is one line.
	Reason string `json:"error"`
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }

// readRefusal is the refusal in an answer; nil where it holds none.
func readRefusal(status int, body []byte) *Refusal {
	r := Refusal{Status: status}
	if json.Unmarshal(body, &r) != nil || r.Reason == "" {
		return nil
	}
	r.Reason = oneLine(r.Reason)
	return &r
}

// serveDrain answers a DrainRequest with what do makes of it.
func serveDrain(do func(context.Context, DrainRequest) (*DrainAnswer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req DrainRequest
		if err := readJSON(r.Body, &req); err != nil {
			answer(w, nil, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		a, err := do(ctx, req)
		if errors.Is(err, context.DeadlineExceeded) {
			err = &Refusal{http.StatusServiceUnavailable,
				fmt.Sprintf("lb4d has not carried it out within %s and may still do so: see lbctl status", changeTimeout)}
		}
		if a != nil {
			a.Members = list(a.Members)
		}
		answer(w, a, err)
	}
}

// readJSON reads one JSON value and nothing besides: a request that is not
// understood in full is not carried out in part.
func readJSON(body io.Reader, to any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the JSON object")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &Refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("reading the request: it has more than %d bytes", tooLarge.Limit)}
	case err != nil:
		return &Refusal{http.StatusBadRequest, "reading the request: " + oneLine(err.Error())}
	}
	return nil
}

// answer sends v, or why there is none.
func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		refusal := &Refusal{http.StatusInternalServerError, err.Error()}
		errors.As(err, &refusal)
		status, v = refusal.Status, refusal
	}
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header(w, "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error is the client's, who is gone
}

// Drain asks the daemon to drain a member, and returns when it is in effect. A
// *Refusal says why it is not.
func (c *Client) Drain(ctx context.Context, r DrainRequest) (*DrainAnswer, error) {
	return c.drain(ctx, "/v1/drain", r)
}

// Undrain asks the daemon to end a drain, as Drain does to begin one.
func (c *Client) Undrain(ctx context.Context, r DrainRequest) (*DrainAnswer, error) {
	return c.drain(ctx, "/v1/undrain", r)
}

func (c *Client) drain(ctx context.Context, path string, r DrainRequest) (*DrainAnswer, error) {
	send, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	body, err := c.ask(ctx, http.MethodPost, path, send, clientChangeTimeout)
	if err != nil {
		return nil, err
	}
	var a DrainAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("reading the answer on %s: %w: are lbctl and %s of the same version? (lbctl version)", c.socket, err, c.program)
	}
	return &a, nil
}
