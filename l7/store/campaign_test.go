package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lb4d/l7/slots"
)

// silentStore never tells anything.
type silentStore struct{ *File }

func (silentStore) Watch(ctx context.Context) <-chan Update {
	ch := make(chan Update)
	context.AfterFunc(ctx, func() { close(ch) })
	return ch
}

// memory is a lease in memory, which can be away.
type memory struct {
	mu     sync.Mutex
	holder string
	until  time.Time
	away   bool
}

func (m *memory) CompareAndSwap(context.Context, slots.Record) (slots.Record, error) {
	return slots.Record{}, ErrConflict
}
func (m *memory) Watch(context.Context) <-chan Update { return nil }

func (m *memory) Lease(ctx context.Context, holder string, ttl time.Duration) (Tenure, error) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away {
		<-ctx.Done()
		return Tenure{}, errors.New("away")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	switch {
	case ttl <= 0 && m.holder == holder:
		m.holder = ""
		return Tenure{}, nil
	case m.holder != "" && m.holder != holder && now.Before(m.until):
		return Tenure{Holder: m.holder}, nil
	}
	m.holder, m.until = holder, now.Add(ttl)
	return Tenure{Held: true, Holder: holder, Until: m.until}, nil
}

// The clock is the test's, so each line's second is exact.
func TestCampaign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		start := time.Now()
		var mu sync.Mutex
		var lines []string
		campaign := func(name string) context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			go Campaign(ctx, m, name, 6*time.Second, func(now Tenure, err error) {
				mu.Lock()
				defer mu.Unlock()
				who := "nobody"
				switch {
				case now.Held:
					who = "it"
				case now.Holder != "":
					who = now.Holder
				}
				line := fmt.Sprintf("%v %s: %s", time.Since(start), name, who)
				if err != nil {
					line += ", " + err.Error()
				}
				lines = append(lines, line)
			})
			return cancel
		}
		stopA := campaign("a")
		time.Sleep(time.Second)
		stopB := campaign("b")
		time.Sleep(9 * time.Second) // 10s: renewals, nothing to tell

		stopA() // gives it up
		time.Sleep(5 * time.Second)
		stopA = campaign("a") // 15s
		time.Sleep(5 * time.Second)

		m.mu.Lock()
		m.away = true // 20s
		m.mu.Unlock()
		time.Sleep(20 * time.Second)
		m.mu.Lock()
		m.away = false // 40s
		m.mu.Unlock()
		time.Sleep(10 * time.Second)
		stopA()
		stopB()
		synctest.Wait()

		// What happens in one second has no order.
		mu.Lock()
		slices.SortFunc(lines, func(a, b string) int {
			second := func(s string) time.Duration {
				d, _ := time.ParseDuration(s[:strings.Index(s, " ")])
				return d
			}
			return cmp.Or(cmp.Compare(second(a), second(b)), strings.Compare(a, b))
		})
		mu.Unlock()
		want := strings.Fields("0s_a:_it 1s_b:_a 11s_b:_it 15s_a:_b 23s_a:_b,_away 23s_b:_it,_away 25s_b:_nobody,_away")
		mu.Lock()
		defer mu.Unlock()
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "_", " ")
			if i >= len(lines) || lines[i] != want[i] {
				t.Errorf("line %d: want %s", i, want[i])
			}
		}
		// Who is first after the outage is a matter of chance; one has it, and
		// the other knows.
		held := 0
		for _, l := range lines[min(len(lines), len(want)):] {
			if strings.HasSuffix(l, ": it") {
				held++
			}
		}
		if held != 1 || t.Failed() {
			t.Errorf("%d have it in the end:\n%s", held, strings.Join(lines, "\n"))
		}
	})
}
