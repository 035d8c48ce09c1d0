package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("differs from %s, which -update writes anew (-want +got):\n%s", path, diff)
	}
}

// rehashed is the answer on a flow whose member drains.
func rehashed() *control.ExplainAnswer {
	return &control.ExplainAnswer{
		Host: "lb4-1", Client: "203.0.113.7:40000", Service: "198.51.100.1:80/tcp", Name: "www", Pool: "lb7",
		Fingerprint: "5f3a9c21-8bd04e77", Slot: 1234, Slots: 4093, Rehashes: 2,
		Owner:  &control.Destination{Member: "lb7-1", Address: "192.0.2.139:80", FullWeight: 1, State: "draining", Reason: "draining: drained by the operator: new disk, \x1b[2J, since 2024-05-17T03:12:45Z"},
		Used:   &control.Destination{Member: "lb7-2", Address: "192.0.2.140:80", Weight: 1, FullWeight: 1, State: "up", Reason: "up: 200 OK in 1ms"},
		Reason: "the slot's owner takes no new flows; hashed again 2 times, the flow goes to 192.0.2.140:80 until the owner is back",
		Kept:   "a flow that this host already carries keeps its member, whatever the table says", VIPState: "announced", VIPReason: "www forwards to 1 of 2 members",
	}
}

func TestExplainVerb(t *testing.T) {
	refused := rehashed()
	refused.Used, refused.Rehashes, refused.Owner.Member = nil, 0, ""
	refused.Reason = "no member takes new flows, so the kernel refuses the flow"
	refused.VIPState, refused.VIPReason = "withdrawn", "www has 0 of 2 members up, quorum 1"
	var answer *control.ExplainAnswer
	var failed error
	var asked control.ExplainRequest
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := control.Listen(control.Options{Socket: path, Explain: func(_ context.Context, r control.ExplainRequest) (*control.ExplainAnswer, error) {
		asked = r
		return answer, failed
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ask := func(args ...string) (exit int, stdout, stderr string) {
		var out, errs bytes.Buffer
		exit = run(t.Context(), append([]string{"explain", "-socket", path}, args...), &out, &errs)
		return exit, out.String(), errs.String()
	}

	for name, a := range map[string]*control.ExplainAnswer{"explain": rehashed(), "explain-refused": refused} {
		answer = a
		exit, stdout, stderr := ask("203.0.113.7:40000", "198.51.100.1:80")
		if exit != 0 || stderr != "" {
			t.Errorf("%s: exit status %d, %s", name, exit, stderr)
		}
		golden(t, name, stdout)
	}
	if want := (control.ExplainRequest{Client: "203.0.113.7:40000", Service: "198.51.100.1:80"}); asked != want {
		t.Errorf("asked %+v, want %+v", asked, want)
	}

	answer = rehashed()
	_, stdout, _ := ask("a", "b", "-o", "json")
	got := &control.ExplainAnswer{}
	if err := json.Unmarshal([]byte(stdout), got); err != nil || strings.Contains(stdout, "\x1b") {
		t.Errorf("JSON %q: %v", stdout, err)
	}
	if diff := cmp.Diff(answer, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}

	failed = &control.Refusal{Status: 404, Reason: "there is no service 198.51.100.1:81/tcp: name one of 198.51.100.1:80/tcp"}
	exit, stdout, stderr := ask("a", "b")
	if want := "lbctl: " + failed.Error() + "\n"; exit != 1 || stdout != "" || stderr != want {
		t.Errorf("refused: exit status %d, %q, %q; want 1 and %q", exit, stdout, stderr, want)
	}
	if exit, _, stderr := ask("203.0.113.7:40000"); exit != 2 || !strings.Contains(stderr, "too few arguments: write lbctl explain CLIENT:PORT VIP:PORT[/udp]") {
		t.Errorf("without a service: exit status %d, %q", exit, stderr)
	}
}
