package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv has the test binary be lb7d's part, as a process that can be killed.
const childEnv = "LB7D_DIRECTORY"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := child(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(text string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	d, err := New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := Listen(cfg.Listen)
	if err != nil {
		return err
	}
	return d.Run(ctx, l)
}

// spawn runs lb7d's part as a process and waits until HAProxy sends misses to
// it. The function it returns kills it at once.
func (s *site) spawn() (kill func()) {
	s.t.Helper()
	text, err := json.Marshal(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = s.logs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	s.t.Cleanup(kill)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.say("show stat misses 4 -1"), ",UP,") ||
		!strings.Contains(s.say("show servers state misses"), s.cfg.Listen[:9]); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("lb7d's part does not come up:\n%s", s.logs)
		}
	}
	if _, _, err := fetch(s.cfg.Listen, CheckHost); err != nil {
		s.t.Fatalf("lb7d's part: %v", err)
	}
	return kill
}
