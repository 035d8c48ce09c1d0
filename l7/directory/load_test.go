package directory

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// load asks for hosts, one after the other, from several clients that keep
// their connections, until it is stopped.
type load struct {
	at      string
	hosts   []string
	pods    map[string]string // what the answer has to begin with
	clients int
	pause   time.Duration // of each client, after each request

	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	took []time.Duration
	// failed had no answer, or an error; wrong came from another pod.
	failed, wrong []string
}

func (l *load) start() *load {
	l.stop = make(chan struct{})
	for i := range l.clients {
		l.wg.Go(func() { l.client(i) })
	}
	return l
}

func (l *load) client(i int) {
	tr := &http.Transport{MaxIdleConnsPerHost: 1}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 20 * time.Second}
	var took []time.Duration
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.took = append(l.took, took...)
	}()
	for n := i; ; n += l.clients {
		select {
		case <-l.stop:
			return
		case <-time.After(l.pause):
		}
		host := l.hosts[n%len(l.hosts)]
		req, _ := http.NewRequest(http.MethodGet, "http://"+l.at+"/load", nil)
		req.Host = host
		begun := time.Now()
		resp, err := c.Do(req)
		fault, other := "", ""
		if err != nil {
			fault = err.Error()
		} else {
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			switch {
			case err != nil || resp.StatusCode != http.StatusOK:
				fault = fmt.Sprintf("%s: %s %v", host, resp.Status, err)
			case !strings.HasPrefix(string(text), l.pods[host]+" "):
				other = fmt.Sprintf("%s: %s, not %s", host, text, l.pods[host])
			}
		}
		took = append(took, time.Since(begun))
		if fault != "" || other != "" {
			l.mu.Lock()
			if fault != "" {
				l.failed = append(l.failed, fault)
			} else {
				l.wrong = append(l.wrong, other)
			}
			l.mu.Unlock()
		}
	}
}

// end stops the load; every request must have gone well.
func (l *load) end(t testing.TB, what string) *load {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	slices.Sort(l.took)
	if len(l.took) < 20 {
		t.Errorf("%s: %d requests are too few to tell anything", what, len(l.took))
	}
	if len(l.failed)+len(l.wrong) > 0 {
		t.Errorf("%s: of %d requests %d failed and %d went wrong: %v %v", what, len(l.took), len(l.failed), len(l.wrong), first(l.failed), first(l.wrong))
	}
	return l
}

func first(s []string) []string { return s[:min(3, len(s))] }

// quantile is one of the times.
func (l *load) quantile(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	return l.took[min(len(l.took)-1, int(q*float64(len(l.took))))]
}

// hosts are n of them with their pods, as lines of a map too.
func hosts(n int) (names []string, pods map[string]string, lines string) {
	pods = map[string]string{}
	var b strings.Builder
	for i := range n {
		h, p := fmt.Sprintf("host%d.example.org", i), fmt.Sprintf("pod%d", i%3)
		names, pods[h] = append(names, h), p
		fmt.Fprintf(&b, "%s %s\n", h, p)
	}
	return names, pods, b.String()
}
