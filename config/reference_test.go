package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// commentedOut is a line of the reference that shows a default.
var commentedOut = regexp.MustCompile(`(?m)^#([a-z])`)

// example is a line of the reference that shows a key without a default.
var example = regexp.MustCompile(`(?m)^## ([a-z])`)

// TestReferenceLoads proves that the reference is a configuration, and that
// the defaults that it shows are the real ones.
func TestReferenceLoads(t *testing.T) {
	plain, err := Parse("reference.toml", []byte(Reference))
	if err != nil {
		t.Fatal(err)
	}
	explicit, err := Parse("reference.toml", []byte(commentedOut.ReplaceAllString(Reference, "$1")))
	if err != nil {
		t.Fatalf("with its defaults written out: %v", err)
	}
	if diff := cmp.Diff(plain, explicit, same); diff != "" {
		t.Errorf("the defaults that it shows change it (-without +with):\n%s", diff)
	}
}

// TestReferenceExamples proves that each example would be accepted in its
// place. The password file is one that exists, and the encapsulation the one
// that takes most keys.
func TestReferenceExamples(t *testing.T) {
	key := t.TempDir() + "/key"
	if err := os.WriteFile(key, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(Reference, "\n") {
		if !example.MatchString(line) {
			continue
		}
		t.Run(strings.Fields(line)[1], func(t *testing.T) {
			text := strings.Replace(Reference, line, strings.TrimPrefix(line, "## "), 1)
			text = strings.Replace(text, "/etc/lb/rr1.key", key, 1)
			text = strings.Replace(text, `#encapsulation = "ipip"`, `encapsulation = "gue"`, 1)
			if _, err := Parse("reference.toml", []byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReferenceIsComplete proves that every key that the daemon knows stands
// in the reference.
func TestReferenceIsComplete(t *testing.T) {
	text := commentedOut.ReplaceAllString(Reference, "$1")
	text = example.ReplaceAllString(text, "$1")
	// A key may be shown twice, as a default and as an example.
	var c checker
	root, ok := c.document([]byte(text))
	if !ok {
		t.Fatal(c.err())
	}
	want := slices.Sorted(slices.Values(keysOf(&rawFile{}, "")))
	got := slices.Compact(slices.Sorted(slices.Values(keysIn(root, &rawFile{}, ""))))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-known +in the reference):\n%s", diff)
	}
}

// entries is a table of tables with names.
type entries interface{ entry() rawTable }

// keysOf is the path of every key that a table may have, with NAME for names.
func keysOf(t rawTable, prefix string) []string {
	var keys []string
	for _, f := range t.fields() {
		keys = append(keys, prefix+f.key)
		switch to := f.to.(type) {
		case section:
			keys = append(keys, keysOf(to.rawTable, prefix+f.key+".")...)
		case entries:
			keys = append(keys, keysOf(to.entry(), prefix+f.key+".NAME.")...)
		}
	}
	return keys
}

// keysIn is the path of every key that a part of a file has.
func keysIn(n *node, t rawTable, prefix string) []string {
	var keys []string
	for _, key := range n.keys {
		keys = append(keys, prefix+key)
		i := slices.IndexFunc(t.fields(), func(f field) bool { return f.key == key })
		if i < 0 {
			continue // unknown; the comparison will tell
		}
		switch to := t.fields()[i].to.(type) {
		case section:
			keys = append(keys, keysIn(n.children[key], to.rawTable, prefix+key+".")...)
		case entries:
			for _, entry := range n.children[key].children {
				keys = append(keys, keysIn(entry, to.entry(), prefix+key+".NAME.")...)
			}
		}
	}
	return keys
}
