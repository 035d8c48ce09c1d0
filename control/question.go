package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// serveQuestion answers a request that changes nothing with what ask makes of
// it. Such requests are POST too, since what they ask does not fit into an
// address.
func serveQuestion[Q, A any](ask func(context.Context, Q) (*A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := readJSON(r.Body, &q); err != nil {
			answer(w, nil, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		a, err := ask(ctx, q)
		if errors.Is(err, context.DeadlineExceeded) {
			err = &Refusal{http.StatusServiceUnavailable,
				fmt.Sprintf("the answer was not found within %s: try again", changeTimeout)}
		}
		answer(w, a, err)
	}
}

// question asks the daemon what serveQuestion answers there.
func question[A any](ctx context.Context, c *Client, path string, q any) (*A, error) {
	send, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	body, err := c.ask(ctx, http.MethodPost, path, send, clientChangeTimeout)
	if err != nil {
		return nil, err
	}
	a := new(A)
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("reading the answer on %s: %w: are lbctl and %s of the same version? (lbctl version)", c.socket, err, c.program)
	}
	return a, nil
}
