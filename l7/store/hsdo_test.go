package store

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"lb4d/internal/storetest"
	"lb4d/l7/slots"
)

// hsdo writes a row as HSDO's server does, asg left out where it is empty.
func hsdo(t *testing.T, client *dynamodb.Client, n int, ip, name, asg string, weight int, update string) {
	t.Helper()
	status := "enabled"
	if ip == "none" {
		status = "disabled"
	}
	i := item{
		"BackendServerID": number(n), "IPAddress": text(ip), "ServerName": text(name),
		"Weight": number(weight), "BackendServerStatus": text(status), "LastWeightUpdate": text(update),
	}
	if asg != "" {
		i["ASG"] = text(asg)
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(tableName), Item: i}); err != nil {
		t.Fatal(err)
	}
}

// table is every row as HSDO's client reads it, and what it would miss: each
// attribute has to be there, or that client ends with a KeyError.
func table(t *testing.T, client *dynamodb.Client) (rows string, missing []string) {
	t.Helper()
	out, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String(tableName), ConsistentRead: aws.Bool(true)})
	if err != nil || out.LastEvaluatedKey != nil {
		t.Fatalf("%v, or more than a page", err)
	}
	byNumber := map[int]string{}
	for _, i := range out.Items {
		n, r, ok := readRow(i)
		if !ok {
			t.Errorf("a row without a number: %v", i)
		}
		for _, a := range []string{"IPAddress", "ServerName", "ASG", "BackendServerStatus", "LastWeightUpdate"} {
			if textOf(i, a) == "" {
				missing = append(missing, fmt.Sprintf("row %d has no %s", n, a))
			}
		}
		if _, ok := intOf(i, "Weight"); !ok {
			missing = append(missing, fmt.Sprintf("row %d has no Weight", n))
		}
		byNumber[n] = fmt.Sprintf("%d %s %s %s %d %s", n, r.IPAddress, r.ServerName, r.ASG, r.Weight, r.Status)
	}
	var lines []string
	for n := range slots.MaxSlots {
		if l, ok := byNumber[n]; ok {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n"), missing
}

// awaitTable waits until the rows say what they should.
func awaitTable(t *testing.T, client *dynamodb.Client, want string) {
	t.Helper()
	want = strings.TrimSpace(strings.ReplaceAll(want, "\t", ""))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got, missing := table(t, client)
		if got == want {
			if len(missing) > 0 {
				t.Errorf("HSDO's client would fail: %v", missing)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table is\n%s\nwant\n%s", got, want)
		}
	}
}

// A table of HSDO's is read as it stands, followed while HSDO's server still
// writes it, and taken over by the first write without a server moving. After
// that HSDO's clients go on reading it.
func TestHSDO(t *testing.T) {
	_, client := storetest.Dynalite(t, tableName)
	ctx := t.Context()
	hsdo(t, client, 1, "10.0.0.1", "i-1", "asg-a", 10, "2024-05-06 07:08:09.123456")
	hsdo(t, client, 2, "none", "none", "none", 0, "0-0-0 00:00:00.000000")
	hsdo(t, client, 3, "10.0.0.3", "i-3", "asg-b", 4, "2024-05-06 07:08:09")
	hsdo(t, client, 4, "10.0.0.4", "i-4", "", 10, "2024-05-06 07:08:09.5")
	// What HSDO without a lock, or somebody without a clue, can leave behind.
	hsdo(t, client, 5, "10.0.0.3", "i-3", "asg-b", 1, "2024-05-06 07:08:09")
	hsdo(t, client, 6, "10.0.0.6;show env", "i-6", "asg-b", 1, "2024-05-06 07:08:09")
	hsdo(t, client, 7, "10.0.0.7", "i-7\nx", "asg-b", 1, "2024-05-06 07:08:09")

	s := NewDynamoDB(client, DynamoDBOptions{Table: tableName, Port: 8080, Weight: 10, Poll: 20 * time.Millisecond})
	updates := s.Watch(ctx)
	u := await(t, updates, 10*time.Second, "1=i-1 3=i-3 4=i-4", false)
	if u.Record.Version != 0 {
		t.Errorf("version %d of a table that is not ours", u.Record.Version)
	}
	third := u.Record.Slots[2]
	if third.Addr.String() != "10.0.0.3:8080" || third.Group != "asg-b" || third.Weight != 4 || third.Full != 10 || third.RampedAt.Format(time.DateTime) != "2024-05-06 07:08:09" {
		t.Errorf("slot 3 is %+v", third)
	}

	// HSDO's server is still at work.
	hsdo(t, client, 2, "10.0.0.2", "i-2", "asg-a", 1, "2024-05-06 07:08:10.000001")
	u = await(t, updates, 10*time.Second, "1=i-1 2=i-2 3=i-3 4=i-4", false)

	// Taken over: i-3 is excluded, i-4 gone, i-5 new.
	p := slots.Policy{Slots: 6, MaxShrink: 100, Weight: 10, Rest: time.Minute, Ramp: slots.Ramp{From: 1, Step: 1, Every: 24 * time.Hour * 100000}}
	at := func(n byte, id, group string) slots.Server {
		return slots.Server{ID: id, Addr: netip.AddrFrom4([4]byte{10, 0, 0, n}), Port: 8080, Weight: slots.NoWeight, Group: group}
	}
	list := []slots.Server{at(1, "i-1", "asg-a"), at(2, "i-2", "asg-a"), at(3, "i-3", "asg-b"), at(5, "i-5", "")}
	list[2].Exclude = true
	r, err := Change(ctx, s, u.Record, func(r slots.Record) (slots.Record, bool) {
		next, c := slots.Assign(r, list, time.Now(), p)
		return next, c.Changed
	})
	if err != nil || who(r) != "1=i-1 2=i-2 3=i-3 5=i-5" || r.Version != 1 {
		t.Fatalf("taken over: %s, version %d, %v", who(r), r.Version, err)
	}
	if r.Slots[1].Weight != 1 {
		t.Errorf("the ramp of i-2 does not go on from weight 1: %+v", r.Slots[1])
	}
	awaitTable(t, client, `
		1 10.0.0.1 i-1 asg-a 10 enabled
		2 10.0.0.2 i-2 asg-a 1 enabled
		3 10.0.0.3 i-3 asg-b 0 enabled
		4 none none none 0 disabled
		5 10.0.0.5 i-5 none 1 enabled
		6 none none none 0 disabled`)

	// The writer ends before it has copied its record to the rows; whoever
	// gets the lease next does it.
	dead := NewDynamoDB(client, DynamoDBOptions{Table: tableName})
	if r, err = Change(ctx, dead, r, assigning("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(ctx, "next", time.Minute); err != nil {
		t.Fatal(err)
	}
	awaitTable(t, client, fmt.Sprintf(`
		1 %s a none 10 enabled
		2 none none none 0 disabled
		3 none none none 0 disabled
		4 none none none 0 disabled
		5 none none none 0 disabled
		6 none none none 0 disabled
		7 none none none 0 disabled
		8 none none none 0 disabled`, server("a").Addr))
}

// The lease can be taken before there is a record; its row is whole for
// HSDO's readers all the same, and it does not count as a server.
func TestHSDOLeaseRow(t *testing.T) {
	_, client := storetest.Dynalite(t, tableName)
	s := NewDynamoDB(client, DynamoDBOptions{Table: tableName, Poll: 20 * time.Millisecond})
	if got, err := s.Lease(t.Context(), "a", time.Minute); err != nil || !got.Held {
		t.Fatalf("%+v, %v", got, err)
	}
	awaitTable(t, client, `2 none none none 0 disabled`)
	updates := s.Watch(t.Context())
	u := await(t, updates, 10*time.Second, "", false)
	if _, err := Change(t.Context(), s, u.Record, assigning("a")); err != nil {
		t.Fatal(err)
	}
	await(t, updates, 10*time.Second, "1=a", false)
}

// 1,000 servers fit one item, and their rows are written.
func TestDynamoDBThousand(t *testing.T) {
	_, client := storetest.Dynalite(t, tableName)
	s := NewDynamoDB(client, DynamoDBOptions{Table: tableName, Poll: 50 * time.Millisecond})
	updates := s.Watch(t.Context())
	var list []slots.Server
	for i := range 1000 {
		list = append(list, server(fmt.Sprintf("i-%017x", i*7919)))
	}
	start := time.Now()
	r, err := Change(t.Context(), s, slots.Record{}, func(r slots.Record) (slots.Record, bool) {
		next, c := slots.Assign(r, list, time.Now(), slots.Policy{Slots: 1000, Weight: 10})
		return next, c.Changed
	})
	if err != nil || r.Occupied() != 1000 {
		t.Fatalf("%d servers, %v", r.Occupied(), err)
	}
	wrote := time.Since(start)
	for u := range updates {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		if u.Record.Version == r.Version {
			break
		}
	}
	row, err := s.get(t.Context(), recordRow)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("written in %v, rows in %v, read units %d", wrote.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), size(row)/4096+1)
	if size(row) > 300_000 {
		t.Errorf("the first row has %d bytes; DynamoDB takes 400 kB", size(row))
	}
	if got, missing := table(t, client); strings.Count(got, "enabled") != 1000 || len(missing) > 0 {
		t.Errorf("%d rows are enabled, %v", strings.Count(got, "enabled"), missing)
	}
}

// size is roughly what DynamoDB charges for.
func size(i item) int {
	n := 0
	for name, v := range i {
		n += len(name)
		switch v := v.(type) {
		case *types.AttributeValueMemberB:
			n += len(v.Value)
		case *types.AttributeValueMemberS:
			n += len(v.Value)
		}
	}
	return n
}
