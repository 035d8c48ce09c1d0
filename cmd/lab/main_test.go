package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/lab"
)

func TestMain(m *testing.M) {
	lab.Init()
	os.Exit(m.Run())
}

func TestSizes(t *testing.T) {
	sized := func(base lab.Sizes, lb4, lb7, servers int) lab.Sizes {
		base.LB4, base.LB7, base.Servers = lb4, lb7, servers
		return base
	}
	tests := []struct {
		args  string
		want  lab.Sizes
		given bool
	}{
		{"", lab.DefaultSizes, false},
		{"-foreground", lab.DefaultSizes, false},
		{"-full", lab.FullSizes, true},
		{"-lb4 5", sized(lab.DefaultSizes, 5, 4, 3), true},
		{"-lb4 2 -lb7 3 -servers 1", sized(lab.DefaultSizes, 2, 3, 1), true},
		{"-servers 1 -full", sized(lab.FullSizes, 7, 13, 1), true},
		{"-rr bird", lab.DefaultSizes, true},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			f := flagSet("up")
			sizes := sizeFlags(f)
			f.Bool("foreground", false, "")
			if err := parse(f, strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, sizes.sizes()); diff != "" {
				t.Errorf("sizes (-want +got):\n%s", diff)
			}
			if got := sizes.given(); got != tt.given {
				t.Errorf("given: %v, want %v", got, tt.given)
			}
		})
	}
}

func TestSizesRefused(t *testing.T) {
	for _, args := range []string{"-lb4 0", "-lb7 1000", "-rr quagga"} {
		f := flagSet("up")
		sizes := sizeFlags(f)
		if err := parse(f, strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if _, err := sizes.request(); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestParseSignal(t *testing.T) {
	tests := []struct {
		in   string
		want syscall.Signal
	}{
		{"KILL", syscall.SIGKILL}, {"SIGHUP", syscall.SIGHUP}, {"term", syscall.SIGTERM}, {"12", syscall.SIGUSR2},
		{"FOO", 0}, {"", 0}, {"0", 0}, {"-1", 0}, {"65", 0},
	}
	for _, tt := range tests {
		got, err := parseSignal(tt.in)
		if got != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("parseSignal(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

// TestUsage has every fault of the command line end with 2 before anything is
// started.
func TestUsage(t *testing.T) {
	for _, args := range []string{
		"", "frobnicate", "up -lb4 none", "up extra", "up -lb4 0", "down extra", "exec", "logs", "logs a b c",
		"stop LB7-1", "kill -s FOO LB7-1 haproxy", "kill LB7-1", "load extra", "load -vip nonsense", "run a b", "run -rr x", "test-exec",
		"compare extra", "compare -flows 0", "compare -flows 1000", "compare -lb7 1", "compare -event nonsense", "compare -balancer keepalived",
	} {
		if code := run(strings.Fields(args)); code != statusUsage {
			t.Errorf("lab %s: status %d, want %d", args, code, statusUsage)
		}
	}
	for _, args := range []string{"help", "version", "run -list", "up -h"} {
		if code := run(strings.Fields(args)); code != 0 {
			t.Errorf("lab %s: status %d, want 0", args, code)
		}
	}
}
