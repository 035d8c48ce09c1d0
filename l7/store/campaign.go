package store

import (
	"context"
	"time"
)

// Campaign tries to get the lease and to keep it until ctx ends, then gives it
// up. It tells each change of who has it: within a third of ttl when it falls
// to this holder, and no later than its end when it can no longer be renewed.
// Errors of the store are told too, with what is known of the tenure; the same
// one is told once.
func Campaign(ctx context.Context, s Store, holder string, ttl time.Duration, told func(Tenure, error)) {
	var now Tenure
	said, lastErr := false, ""
	defer func() {
		if now.Held {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(opTimeout, ttl))
			defer cancel()
			_, _ = s.Lease(end, holder, 0) // or it ends by itself
		}
	}()
	for {
		began := time.Now()
		patience := min(opTimeout, ttl/3)
		if now.Held {
			// Not past the end of the tenure, which has to be told in time.
			patience = max(min(patience, time.Until(now.Until)), time.Millisecond)
		}
		try, cancel := context.WithTimeout(ctx, patience)
		next, err := s.Lease(try, holder, ttl)
		cancel()
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
			if next = now; next.Held && !time.Now().Before(next.Until) {
				next = Tenure{}
			}
		}
		if !said || next.Held != now.Held || next.Holder != now.Holder || text != lastErr {
			told(next, err)
		}
		now, said, lastErr = next, true, text

		wait := began.Add(ttl / 3)
		if now.Held && now.Until.Before(wait) {
			wait = now.Until
		}
		select {
		case <-time.After(max(time.Until(wait), ttl/20)):
		case <-ctx.Done():
			return
		}
	}
}
