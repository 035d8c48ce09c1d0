package config

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//go:embed testdata/full.toml
var full string

// faultCase is a change to testdata/full.toml, or full-lb7d.toml, and what it
// must be answered with, line by line.
type faultCase struct {
	name     string
	old, new string
	want     string
}

func testFaults(t *testing.T, cases []faultCase) {
	t.Helper()
	testFaultsOf(t, "lb4d.toml", full, func(data []byte) error { _, err := Parse("lb4d.toml", data); return err }, cases)
}

func testLB7Faults(t *testing.T, cases []faultCase) {
	t.Helper()
	testFaultsOf(t, "lb7d.toml", fullLB7, func(data []byte) error { _, err := ParseLB7("lb7d.toml", data); return err }, cases)
}

func testFaultsOf(t *testing.T, name, full string, parse func([]byte) error, cases []faultCase) {
	t.Helper()
	if err := parse([]byte(full)); err != nil {
		t.Fatalf("%s has faults before anything is changed: %v", name, err)
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if n := strings.Count(full, tc.old); n != 1 {
				t.Fatalf("%q stands in the file %d times, want once", tc.old, n)
			}
			err := parse([]byte(strings.Replace(full, tc.old, tc.new, 1)))
			if err == nil {
				t.Fatalf("no fault, want %s", tc.want)
			}
			if diff := cmp.Diff(strings.Split(tc.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaultLine tells how a fault is written whatever is in the file: on one
// line, bounded, and without anything that moves a cursor.
func TestFaultLine(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault Fault
		want  string
	}{
		{"with a line and a key",
			Fault{File: "lb4d.toml", Line: 7, Key: "bgp.as", Message: "is missing; write one"},
			"lb4d.toml:7: bgp.as: is missing; write one"},
		{"without a key",
			Fault{File: "lb4d.toml", Line: 7, Message: "is no TOML"},
			"lb4d.toml:7: is no TOML"},
		{"of the whole file",
			Fault{File: "lb4d.toml", Message: "does not exist"},
			"lb4d.toml: does not exist"},
		{"with a file whose name has a line feed",
			Fault{File: "a\nb\x1b[2J", Message: "does not exist"},
			`a\nb\x1b[2J: does not exist`},
		{"with a file whose name is long",
			Fault{File: "/" + strings.Repeat("a/", 200) + "lb4d.toml", Line: 1, Message: "x"},
			"..." + strings.Repeat("a/", 54) + "lb4d.toml:1: x"},
		{"with a message that is long",
			Fault{File: "f", Line: 1, Message: strings.Repeat("é", 200)},
			"f:1: " + strings.Repeat("é", 146) + "..."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.fault.String()); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaultsAreBounded proves that a file full of faults does not become a log
// full of them.
func TestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "key%d = 1\n", i)
	}
	_, err := Parse("lb4d.toml", []byte(b.String()))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxFaults+1 {
		t.Fatalf("%d lines, want %d", len(lines), maxFaults+1)
	}
	// Two of the thousand and two are [bgp] and [service.NAME], missing in
	// line 1.
	want := "lb4d.toml:199: 802 more faults from here on are not shown; mend those above first"
	if diff := cmp.Diff(want, lines[maxFaults]); diff != "" {
		t.Errorf("last line (-want +got):\n%s", diff)
	}
}

// TestClosest tells which words are taken for a slip of the finger.
func TestClosest(t *testing.T) {
	known := []string{"as", "router_id", "hold_time", "peer"}
	for word, want := range map[string]string{
		"routerid":                 "router_id",
		"holdtime":                 "hold_time",
		"peers":                    "peer",
		"AS":                       "as",
		"asn":                      "as",
		"colour":                   "",
		"":                         "",
		strings.Repeat("as", 1000): "",
	} {
		if got := closest(word, known); got != want {
			t.Errorf("closest to %.20q is %q, want %q", word, got, want)
		}
	}
}
