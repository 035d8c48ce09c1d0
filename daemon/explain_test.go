package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
)

// explained tells of one flow in a line: owner, used, rehashes, reason; or the
// refusal.
func explained(d *Daemon, client, service string) string {
	a, err := d.Explain(context.Background(), control.ExplainRequest{Client: client, Service: service})
	if err != nil {
		var refusal *control.Refusal
		if !errors.As(err, &refusal) {
			return "no refusal: " + err.Error()
		}
		return fmt.Sprintf("%d %s", refusal.Status, err)
	}
	who := func(d *control.Destination) string {
		if d == nil {
			return "none"
		}
		return fmt.Sprintf("%s at %d of %d (%s)", d.Member, d.Weight, d.FullWeight, d.Reason)
	}
	return fmt.Sprintf("%s owns, %s used; %s", who(a.Owner), who(a.Used), a.Reason)
}

// ownedBy is a client whose slot is the member's while all is well.
func ownedBy(t *testing.T, d *Daemon, member string) string {
	t.Helper()
	for port := range 200 {
		client := fmt.Sprintf("203.0.113.7:%d", 40000+port)
		a, err := d.Explain(t.Context(), control.ExplainRequest{Client: client, Service: "198.51.100.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		if a.Owner.Member == member {
			return client
		}
	}
	t.Fatalf("of 200 flows none has a slot of %s", member)
	return ""
}

// TestExplain follows one flow through a drain, an outage and back.
func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		client := ownedBy(t, d, "lb7-1")
		expect(t, "all up", explained(d, client, "198.51.100.1:80/tcp"),
			"lb7-1 at 1 of 1 (up: 200 OK) owns, lb7-1 at 1 of 1 (up: 200 OK) used; the slot's owner takes new flows")

		drain(t, d, "lb7-1", "new disk")
		got := explained(d, client, "198.51.100.1:80")
		for _, want := range []string{
			"lb7-1 at 0 of 1 (draining: drained by the operator: new disk, since 2000-01-01T00:00:00Z) owns, lb7-2 at 1 of 1 (up: 200 OK) used; ",
			"the slot's owner takes no new flows; hashed again ", "the flow goes to 192.0.2.140:80 until the owner is back",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("drained: %s\nwant in it %s", got, want)
			}
		}

		w.are(d.cfg, health.Down)
		d.pass()
		got = explained(d, client, "198.51.100.1:80")
		if want := "none used; no member takes new flows, so the kernel refuses the flow"; !strings.HasSuffix(got, want) {
			t.Errorf("all down: %s\nwant at its end %s", got, want)
		}
		a, err := d.Explain(t.Context(), control.ExplainRequest{Client: client, Service: "198.51.100.1:80"})
		if err != nil || a.VIPState != "withdrawn" || a.Kept != kept || a.Name != "www" || a.Pool != "lb7" || a.Slots != 4093 {
			t.Errorf("all down: %+v, %v", a, err)
		}

		w.are(d.cfg, health.Up)
		undrain(t, d, "lb7-1")
		expect(t, "back", explained(d, client, "198.51.100.1:80/tcp"),
			"lb7-1 at 1 of 1 (up: 200 OK) owns, lb7-1 at 1 of 1 (up: 200 OK) used; the slot's owner takes new flows")
	})
}

// TestExplainRefused: whoever asks wrongly hears what would be right.
func TestExplainRefused(t *testing.T) {
	w, d := announcing(t, named)
	const client, service = "203.0.113.7:40000", "198.51.100.1:80"
	for _, tt := range []struct{ name, client, service, want string }{
		{"another port", client, "198.51.100.1:81", "404 there is no service 198.51.100.1:81/tcp: name one of 198.51.100.1:80/tcp"},
		{"another protocol", client, service + "/udp", "404 there is no service 198.51.100.1:80/udp: name one of 198.51.100.1:80/tcp"},
		{"two families", "[2001:db8::7]:40000", service, "400 2001:db8::7 is IPv6 and 198.51.100.1 is IPv4: no flow goes from the one to the other"},
		{"a client without a port", "203.0.113.7", service, `400 the client "203.0.113.7" is no address with a port: write it as 203.0.113.7:40000 or [2001:db8::7]:40000`},
		{"a client with a zone", "[fe80::1%eth0]:1", service, `400 the client "[fe80::1%eth0]:1" is no address`},
		{"a name", client, "www:80", `400 the service "www:80" is no VIP with a port`},
		{"a protocol that is none", client, service + "/sctp", `400 the service "198.51.100.1:80/sctp" is no VIP with a port`},
	} {
		if got := explained(d, tt.client, tt.service); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := explained(d, "[::ffff:203.0.113.7]:40000", service); !strings.Contains(got, "owns") {
		t.Errorf("an IPv4 address written as IPv6: got %s", got)
	}

	refused := func(name, want string, change func(v *view)) {
		t.Helper()
		v := *d.seen.Load()
		change(&v)
		d.seen.Store(&v)
		if got := explained(d, client, service); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		d.pass()
	}
	refused("another scheduler", "409 198.51.100.1:80/tcp has the scheduler wrr, and only of mh", func(v *view) { v.listed = l4.Table{{Key: w.tableNow[0].Key, Scheduler: "wrr"}} })
	refused("not in the kernel", "503 198.51.100.1:80/tcp is not in the kernel's table", func(v *view) { v.listed = nil })
	refused("starting", "503 lb4d is starting", func(v *view) { v.settled = false })

	w.failList = errors.New("no buffer space available")
	d.pass()
	if got, want := explained(d, client, service), "503 the kernel's table cannot be read: see lbctl status"; got != want {
		t.Errorf("unread: got %s, want %s", got, want)
	}
}
