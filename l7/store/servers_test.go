package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"lb4d/internal/storetest"
)

func dialEtcd(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	c, err := DialEtcd(EtcdOptions{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const tableName = "haproxy-service-discovery-orchestrator"

// outage is a store of one kind, opened as often as a test needs it, and the
// way to take it away and bring it back.
type outage struct {
	open       func(t testing.TB) Store
	away, back func(t testing.TB)
}

// kinds are the stores that every test of the contract runs with.
var kinds = map[string]func(t testing.TB) outage{
	"file": func(t testing.TB) outage {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		move := func(from, to string) func(testing.TB) {
			return func(t testing.TB) {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		return outage{
			open: func(testing.TB) Store { return NewFile(filepath.Join(dir, "servers.json")) },
			away: move(dir, dir+".away"), back: move(dir+".away", dir),
		}
	},
	"etcd": func(t testing.TB) outage {
		s := storetest.Etcd(t)
		return outage{
			open: func(t testing.TB) Store { return NewEtcd(dialEtcd(t, s.URL), "/lb7d", "servers") },
			away: func(testing.TB) { s.Kill() }, back: s.Start,
		}
	},
	"dynamodb": func(t testing.TB) outage {
		s, client := storetest.Dynalite(t, tableName)
		return outage{
			open: func(testing.TB) Store {
				return NewDynamoDB(client, DynamoDBOptions{Table: tableName, Port: 80, Weight: 10, Poll: 50 * time.Millisecond})
			},
			away: func(testing.TB) { s.Kill() }, back: s.Start,
		}
	},
}

// everyKind runs the test with each store.
func everyKind(t *testing.T, test func(t *testing.T, o outage)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, kind(t))
		})
	}
}
