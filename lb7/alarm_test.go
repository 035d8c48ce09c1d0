package lb7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

// scraped is the metrics that lb7d tells over HTTP.
func scraped(t *testing.T, port uint16) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOverflow lists more servers than there are slots: those without one are an
// alarm in the log, the status and the metrics, by name, and get the first slots
// that become free.
func TestOverflow(t *testing.T) {
	f := newFarm(t, 12)
	p := newProxy(t, proxyConfig)
	port := haproxytest.FreePort(t)
	f.list(nil, numbered(1, 10)...)
	i := newInstance(t, fmt.Sprintf("[http]\nlisten = \"127.0.0.1:%d\"\n", port)+
		p.tables(`file = "`+f.file+`"`, `slot_rest = "0s"`)).start()
	i.settled(numbered(1, 10)...)
	const metric = `lb7d_record_overflow_servers{record="servers"} `
	if m := scraped(t, port); !strings.Contains(m, metric+"0\n") {
		t.Errorf("no %s0 in the metrics", metric)
	}

	f.list(nil, numbered(1, 12)...)
	st := i.await("the alarm", func(st *control.LB7Status) bool { return len(st.Records[0].Overflow) == 2 })
	if got := strings.Join(st.Records[0].Overflow, " "); got != "web-11 web-12" {
		t.Errorf("%s overflow, want web-11 web-12", got)
	}
	if got := strings.Join(st.Errors, "\n"); !strings.Contains(got, "2 servers without a slot: web-11 web-12") || !strings.Contains(st.Summary, "1 fault") {
		t.Errorf("the status says %q, faults %q", st.Summary, got)
	}
	if !serving(st.Backends[0], numbered(1, 10)...) {
		t.Error("those with a slot have lost it")
	}
	if m := scraped(t, port); !strings.Contains(m, metric+"2\n") || !strings.Contains(m, "\nlb7d_errors 1\n") {
		t.Errorf("no %s2, or no lb7d_errors 1, in the metrics", metric)
	}
	const alarm = `level=ERROR msg="servers without a slot get no traffic: every slot is taken" record=servers servers="web-11 web-12" slots=10`
	time.Sleep(1500 * time.Millisecond) // a poll of the file confirms the list
	if n := strings.Count(i.log.String(), alarm); n != 1 {
		t.Errorf("the log has the alarm %d times, want once", n)
	}

	// The next free slot is theirs.
	f.list(nil, numbered(2, 12)...)
	i.await("one left without a slot", func(st *control.LB7Status) bool { return len(st.Records[0].Overflow) == 1 })
	f.list(nil, numbered(3, 12)...)
	st = i.settled(numbered(3, 12)...)
	if len(st.Records[0].Overflow) > 0 || len(st.Errors) > 0 {
		t.Errorf("overflow %q, faults %q", st.Records[0].Overflow, st.Errors)
	}
	if m := scraped(t, port); !strings.Contains(m, metric+"0\n") {
		t.Errorf("no %s0 in the metrics", metric)
	}
	if !strings.Contains(i.log.String(), `msg="every server has a slot again"`) {
		t.Error("the log does not tell that the alarm is over")
	}
}
