package config

import (
	"os"
	"strings"
	"testing"
)

// The configuration that the shipped HAProxy configuration names at its top is
// one, and agrees with it.
func TestDirectoryExample(t *testing.T) {
	raw, err := os.ReadFile("../packaging/haproxy/directory.cfg")
	if err != nil {
		t.Fatal(err)
	}
	var toml strings.Builder
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "#\t"); ok {
			toml.WriteString(text)
		}
	}
	cfg, err := ParseLB7("directory.cfg", []byte(toml.String()))
	if err != nil || len(cfg.Directories) != 1 {
		t.Fatalf("%v in:\n%s", err, toml.String())
	}
	d := cfg.Directories[0]
	for _, want := range []string{
		"stats socket " + d.Socket + " ", "map(" + d.Map + ")", "server lb7d " + d.Listen + " ", "bind unix@" + d.Forward + " ", "backend " + d.UsageTable + " ",
	} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("HAProxy's part has no %q", want)
		}
	}
}
