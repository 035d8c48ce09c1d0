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

func TestPlanVerb(t *testing.T) {
	share, little, no := 1.0/3, 0.0002, 0.0
	much := &control.PlanAnswer{
		Host:       "lb4-1",
		Settings:   []string{"bgp.drain_time changes from 5s to 10s"},
		Checks:     []control.Change{{What: "lb7-3 (192.0.2.141) of pool lb7", Change: "added"}},
		VIPs:       []control.Change{{What: "198.51.100.9", Change: "withdrawn", Reason: "no longer in the configuration"}, {What: "198.51.100.2", Change: "announced", Reason: "www forwards to 2 of 2 members"}},
		Operations: []string{"add destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 ipip"}, MoreOperations: 17,
		Peers: []control.Change{{What: "rr1 (192.0.2.254)", Change: "changed", Reason: "as 65001, was 65000; another password"}},
		Services: []control.ServiceChange{
			{Service: "198.51.100.1:80/tcp", Change: "changed", Moved: &share},
			{Service: "198.51.100.1:443/tcp", Change: "changed", Moved: &little},
			{Service: "198.51.100.1:53/udp", Change: "changed", Error: "its scheduler is wrr"},
			{Service: "198.51.100.2:80/tcp", Change: "added"},
			{Service: "198.51.100.9:80/tcp", Change: "removed"},
			{Service: "198.51.100.3:80/tcp", Change: "none", Moved: &no},
			{Service: "198.51.100.4:80/tcp", Change: "none", Moved: &no},
		},
	}
	restart := &control.PlanAnswer{Host: "lb4-1", Refused: true,
		Restart:  []string{"bgp.as: cannot change from 65000 to 65001 in a running daemon; restart lb4d"},
		Services: []control.ServiceChange{{Service: "198.51.100.3:80/tcp", Change: "none", Moved: &no}}}
	faults := &control.PlanAnswer{Host: "lb4-1", Refused: true, Services: []control.ServiceChange{},
		Faults: []string{"new.toml:17: service.www.pool: there is no pool \"lb8\"; did you mean \"lb7\"?", "new.toml:18: \x1b[2J"}}
	nothing := &control.PlanAnswer{Host: "lb4-1", Services: restart.Services}

	var answer *control.PlanAnswer
	var asked control.PlanRequest
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := control.Listen(control.Options{Socket: path, Plan: func(_ context.Context, r control.PlanRequest) (*control.PlanAnswer, error) {
		asked = r
		return answer, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file := filepath.Join(t.TempDir(), "new.toml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[bgp]\n")
	ask := func(args ...string) (exit int, stdout, stderr string) {
		var out, errs bytes.Buffer
		exit = run(t.Context(), append([]string{"plan", "-socket", path}, args...), &out, &errs)
		return exit, out.String(), errs.String()
	}

	const refused = "lbctl: a reload would be refused and change nothing\n"
	for _, tt := range []struct {
		name   string
		answer *control.PlanAnswer
		exit   int
		stderr string
	}{
		{"plan", much, 0, ""},
		{"plan-restart", restart, 1, refused},
		{"plan-faults", faults, 1, refused},
		{"plan-nothing", nothing, 0, ""},
	} {
		answer = tt.answer
		exit, stdout, stderr := ask("-config", file)
		if exit != tt.exit || stderr != tt.stderr {
			t.Errorf("%s: exit status %d and %q, want %d and %q", tt.name, exit, stderr, tt.exit, tt.stderr)
		}
		golden(t, tt.name, stdout)
	}
	if want := (control.PlanRequest{Name: file, Config: "[bgp]\n"}); asked != want {
		t.Errorf("asked %+v, want %+v", asked, want)
	}

	answer = much
	_, stdout, _ := ask("--config", file, "-o", "json")
	got := &control.PlanAnswer{}
	if err := json.Unmarshal([]byte(stdout), got); err != nil {
		t.Errorf("JSON %q: %v", stdout, err)
	}
	if diff := cmp.Diff(much, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}

	for name, tt := range map[string]struct {
		args   []string
		exit   int
		stderr string
	}{
		"no file":        {[]string{"-config", file + "x"}, 1, "no such file or directory"},
		"a directory":    {[]string{"-config", filepath.Dir(file)}, 1, "is a directory"},
		"no config":      {nil, 2, "name the configuration with -config FILE"},
		"too many words": {[]string{"-config", file, "x"}, 2, `"x" is one argument too many: write lbctl plan -config FILE`},
	} {
		if exit, stdout, stderr := ask(tt.args...); exit != tt.exit || stdout != "" || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: exit status %d, %q, %q; want %d and %q", name, exit, stdout, stderr, tt.exit, tt.stderr)
		}
	}
	write(strings.Repeat("#", control.MaxConfig+1))
	if exit, _, stderr := ask("-config", file); exit != 1 || !strings.Contains(stderr, "is larger than 1 MiB") {
		t.Errorf("a large file: exit status %d, %q", exit, stderr)
	}
}
