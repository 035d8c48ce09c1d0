package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"lb4d/internal/storetest"
	"lb4d/l7/slots"
)

// A record that the store has lost is put back by the next change, slot by
// slot, instead of every server getting another number.
func TestLost(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) (s Store, lose func()){
		"file": func(t *testing.T) (Store, func()) {
			path := filepath.Join(t.TempDir(), "servers.json")
			return NewFile(path), func() { _ = os.Remove(path) }
		},
		"etcd": func(t *testing.T) (Store, func()) {
			c := dialEtcd(t, storetest.Etcd(t).URL)
			return NewEtcd(c, "/lb7d/", "servers"), func() {
				if _, err := c.Delete(t.Context(), "/lb7d/servers/slots"); err != nil {
					t.Error(err)
				}
			}
		},
		"dynamodb": func(t *testing.T) (Store, func()) {
			_, client := storetest.Dynalite(t, tableName)
			return NewDynamoDB(client, DynamoDBOptions{Table: tableName, Poll: 20 * time.Millisecond}), func() {
				for n := range 20 {
					if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String(tableName), Key: rowKey(n)}); err != nil {
						t.Error(err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			s, lose := prepare(t)
			updates := s.Watch(ctx)
			r, err := Change(ctx, s, slots.Record{}, assigning("z", "b", "c"))
			if err == nil {
				_, err = Change(ctx, s, r, assigning("z", "c"))
			}
			if err != nil {
				t.Fatal(err)
			}
			known := await(t, updates, 10*time.Second, "2=c 3=z", false)
			lose()
			if u := await(t, updates, 10*time.Second, "2=c 3=z", true); !errors.Is(u.Err, ErrGone) {
				t.Errorf("the watch says %v", u.Err)
			}
			if r, err = Change(ctx, s, known.Record, assigning("z", "a", "c")); err != nil || who(r) != "1=a 2=c 3=z" {
				t.Errorf("after the loss: %s, %v", who(r), err)
			}
			await(t, updates, 10*time.Second, "1=a 2=c 3=z", false)
		})
	}
}

// etcd forgets old revisions, and one that starts again without its data
// counts anew from 1: readers notice both.
func TestEtcdForgets(t *testing.T) {
	d := storetest.Etcd(t)
	c := dialEtcd(t, d.URL)
	s := NewEtcd(c, "/lb7d", "servers")
	r, err := Change(t.Context(), s, slots.Record{}, assigning("a"))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := c.Put(t.Context(), "other", "x"); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := c.Put(t.Context(), "other", "y")
	if err == nil {
		_, err = c.Compact(t.Context(), resp.Header.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	updates := s.Watch(t.Context())
	await(t, updates, 10*time.Second, "1=a", false)
	if r, err = Change(t.Context(), s, r, assigning("a", "b")); err != nil {
		t.Fatal(err)
	}
	await(t, updates, 10*time.Second, "1=a 2=b", false)

	d.Kill()
	d.Forget(t)
	d.Start(t)
	if u := await(t, updates, 20*time.Second, "1=a 2=b", true); u.Record.Version != r.Version {
		t.Errorf("version %d, want the last one seen, %d", u.Record.Version, r.Version)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if r, err = Change(t.Context(), s, r, assigning("a", "b", "c")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if r.Version > 5 {
		t.Errorf("version %d: that is not a new etcd", r.Version)
	}
	await(t, updates, 20*time.Second, "1=a 2=b 3=c", false)
}

// How soon a reader knows what another host has written.
func TestEtcdLatency(t *testing.T) {
	url := storetest.Etcd(t).URL
	writer, reader := NewEtcd(dialEtcd(t, url), "/lb7d", "servers"), NewEtcd(dialEtcd(t, url), "/lb7d", "servers")
	updates := reader.Watch(t.Context())
	<-updates
	var r slots.Record
	var worst time.Duration
	for i := range 20 {
		name := strings.Repeat("x", i+1)
		var err error
		if r, err = Change(t.Context(), writer, r, assigning(name)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for u := range updates {
			if u.Record.Version == r.Version {
				break
			}
		}
		worst = max(worst, time.Since(start))
	}
	t.Logf("at most %v after the write", worst.Round(time.Microsecond))
	if worst > 2*time.Second {
		t.Errorf("a watch that takes %v is polling", worst)
	}
}

// What nobody could have meant is not taken for a record, and is not written
// over.
func TestHostileRecords(t *testing.T) {
	good := `{"slots":[{"number":1,"state":"ready","id":"a","addr":"192.0.2.1:80","weight":1,"full":1}],"version":7}`
	for _, tt := range []struct{ name, text, want string }{
		{"as it should be", good, ""},
		{"empty", "", "unexpected end of JSON input"},
		{"cut short", good[:50], "unexpected end of JSON input"},
		{"a newline in an id", strings.Replace(good, `"a"`, `"a\nset server"`, 1), `id "a\nset server" has '\n'`},
		{"port 99999", strings.Replace(good, ":80", ":99999", 1), "port"},
		{"a slot of another number", strings.Replace(good, `"number":1`, `"number":2`, 1), "it has number 2"},
		{"endless", strings.Repeat(" ", maxFile+1), "over 16777216 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "r")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := NewFile(path)
			u := <-s.Watch(t.Context())
			if (u.Err != nil) != (tt.want != "") || u.Err != nil && !strings.Contains(u.Err.Error(), tt.want) {
				t.Errorf("watch: %v, want %q", u.Err, tt.want)
			}
			if tt.want == "" {
				return
			}
			if _, err := Change(t.Context(), s, slots.Record{}, assigning("b")); err == nil {
				t.Error("it is written over")
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tt.text {
				t.Error("the file has changed")
			}
		})
	}
}

// Two that have the copy and no store, at a start: the copy serves, and says
// that it is one.
func TestKeep(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	state, copied := filepath.Join(dir, "state"), filepath.Join(dir, "copy.json")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(state, "servers.json")
	s := Keep(NewFile(path), copied)
	updates := s.Watch(ctx)
	if _, err := Change(ctx, s, slots.Record{}, assigning("a", "b")); err != nil {
		t.Fatal(err)
	}
	r := await(t, updates, 10*time.Second, "1=a 2=b", false).Record
	if c, err := NewFile(copied).read(); err != nil || !c.Equal(r) || c.Version != r.Version {
		t.Fatalf("the copy is %+v, %v", c, err)
	}

	// Started again while the store is empty: it has lost something.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := Keep(NewFile(path), copied)
	updates = again.Watch(ctx)
	u := await(t, updates, 10*time.Second, "1=a 2=b", true)
	if !errors.Is(u.Err, ErrGone) {
		t.Errorf("the watch says %v", u.Err)
	}
	if r, err := Change(ctx, again, u.Record, assigning("b", "c", "a")); err != nil || who(r) != "1=a 2=b 3=c" {
		t.Errorf("after that: %s, %v", who(r), err)
	}
	await(t, updates, 10*time.Second, "1=a 2=b 3=c", false)

	// Started again while the store does not answer.
	silent := Keep(silentStore{NewFile(path)}, copied)
	if u := await(t, silent.Watch(ctx), 10*time.Second, "1=a 2=b 3=c", true); !errors.Is(u.Err, errSilent) {
		t.Errorf("the watch says %v", u.Err)
	}
	// Without a copy there is nothing to serve.
	empty := Keep(silentStore{NewFile(path)}, filepath.Join(dir, "none.json"))
	if u := await(t, empty.Watch(ctx), 10*time.Second, "", true); u.Record.Version != 0 {
		t.Errorf("from nowhere: %+v", u.Record)
	}
}
