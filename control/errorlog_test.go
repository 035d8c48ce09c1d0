package control

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestErrorLog: what net/http says each second, as where descriptors have run
// out, is told now and then.
func TestErrorLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		srv := boundedServer(nil, slog.New(slog.NewTextHandler(&out, nil)))
		const minutes = 10
		for range minutes * 60 {
			srv.ErrorLog.Printf("http: Accept error: accept unix: too many open files; retrying in 1s")
			time.Sleep(time.Second)
		}
		if n := strings.Count(out.String(), "level=WARN"); n < minutes/2 || n > errorBurst+minutes {
			t.Errorf("%d lines in %d minutes, want some, and %d at most", n, minutes, errorBurst+minutes)
		}
		if !strings.Contains(out.String(), "untold=59") {
			t.Errorf("the log does not tell of what it leaves out:\n%s", out.String())
		}
	})
}
