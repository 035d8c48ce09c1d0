package l7

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/internal/haproxytest"
	"lb4d/l7/slots"
)

func TestInclude(t *testing.T) {
	inc := Include{
		Path: filepath.Join(t.TempDir(), "servers.cfg"), Head: "backend servers from base\n", Prefix: "s", Options: "check inter 1s", Slots: 6,
	}
	view := []slots.Slot{
		want(t, 1, "192.0.2.1:80 ready 10 passed"),
		want(t, 2, "[2001:db8::2]:8080 ready 1 passed"),
		want(t, 3, "192.0.2.3:80 ready 1"),
		want(t, 4, "192.0.2.4:80 drain 7 passed"),
		want(t, 5, "free"),
	}
	text, err := inc.Text(view)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimPrefix(`
# Kept by lb7d from its slot record; what is changed here by hand is lost.
backend servers from base
	server s1 192.0.2.1:80 id 1 weight 10 check inter 1s # i-1
	server s2 [2001:db8::2]:8080 id 2 weight 1 check inter 1s # i-2
	server s3 192.0.2.3:80 id 3 weight 1 check inter 1s disabled # i-3
	server s4 192.0.2.4:80 id 4 weight 7 check inter 1s disabled # i-4
	server s5 127.0.0.2:9 id 5 weight 1 check inter 1s disabled
	server s6 127.0.0.2:9 id 6 weight 1 check inter 1s disabled
`, "\n"), string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// It is written once, and HAProxy takes it.
	for i, wrote := range []bool{true, false} {
		if got, err := inc.Write(view); got != wrote || err != nil {
			t.Errorf("write %d: %v, %v", i, got, err)
		}
	}
	main := filepath.Join(t.TempDir(), "haproxy.cfg")
	config := "defaults base\n\tmode http\n\ttimeout connect 1s\n\ttimeout client 1s\n\ttimeout server 1s\n\tbalance uri\n\thash-type consistent\nfrontend in from base\n\tbind 127.0.0.1:1\n\tdefault_backend servers\n"
	if err := os.WriteFile(main, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(haproxytest.Program(t), "-c", "-f", main, "-f", inc.Path).CombinedOutput(); err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, out)
	}

	// What would break the file does not reach it.
	for name, change := range map[string]func(s *slots.Slot){
		"a newline": func(s *slots.Slot) { s.ID = "i\n\tserver evil 203.0.113.1:80" },
		"a comment": func(s *slots.Slot) { s.ID = "i#" },
		"no address": func(s *slots.Slot) {
			*s = slots.Slot{Number: 1, State: slots.Ready, ID: "i", PassedAt: time.Unix(1, 0)}
		},
		"another's place": func(s *slots.Slot) { s.Number = 7 },
		"a great weight":  func(s *slots.Slot) { s.Weight = 1000 },
	} {
		bad := append([]slots.Slot{}, view...)
		change(&bad[0])
		if wrote, err := inc.Write(bad); wrote || err == nil {
			t.Errorf("%s: written: %v, %v", name, wrote, err)
		}
	}
	if after, _ := os.ReadFile(inc.Path); string(after) != string(text) {
		t.Error("the file has changed")
	}
}
