package config

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var samePorts = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// otherChoice is a line of the reference that belongs to another choice than
// the one above it.
var otherChoice = regexp.MustCompile(`(?m)^### `)

// dynamoReference is the reference with DynamoDB for its store.
func dynamoReference(t *testing.T) string {
	t.Helper()
	before, rest, ok := strings.Cut(ReferenceLB7, "\n[store]\n")
	at := otherChoice.FindStringIndex(rest)
	if !ok || at == nil {
		t.Fatal("the reference has not two stores")
	}
	text := before + "\n" + otherChoice.ReplaceAllString(rest[at[0]:], "")
	// The other records need tables of their own.
	for _, name := range []string{"http", "dns", "aws", "consul"} {
		text = strings.Replace(text, "[backend."+name+"]\n", "[backend."+name+"]\ndynamodb = \"table-"+name+"\"\n", 1)
	}
	return text
}

func TestLB7ReferenceLoads(t *testing.T) {
	for name, text := range map[string]string{"etcd": ReferenceLB7, "dynamodb": dynamoReference(t)} {
		t.Run(name, func(t *testing.T) {
			plain, err := ParseLB7("reference-lb7d.toml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			explicit, err := ParseLB7("reference-lb7d.toml", []byte(commentedOut.ReplaceAllString(text, "$1")))
			if err != nil {
				t.Fatalf("with its defaults written out: %v", err)
			}
			if diff := cmp.Diff(plain, explicit, same, samePorts); diff != "" {
				t.Errorf("the defaults that it shows change it (-without +with):\n%s", diff)
			}
		})
	}
}

// TestLB7ReferenceExamples proves that each example would be accepted in its
// place, with those on the neighbouring lines.
func TestLB7ReferenceExamples(t *testing.T) {
	key := t.TempDir() + "/key"
	if err := os.WriteFile(key, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile(`(?m)(^## [a-z].*\n)+`).FindAllStringIndex(ReferenceLB7, -1)
	if len(examples) < 10 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, at := range examples {
		e := ReferenceLB7[at[0]:at[1]]
		t.Run(strings.Fields(e)[1], func(t *testing.T) {
			text := ReferenceLB7[:at[0]] + strings.ReplaceAll("\n"+e, "\n## ", "\n") + ReferenceLB7[at[1]:]
			text = strings.Replace(text, "/etc/lb/etcd.key", key, 1)
			if _, err := ParseLB7("reference-lb7d.toml", []byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLB7ReferenceIsComplete proves that every key that lb7d knows stands in
// the reference.
func TestLB7ReferenceIsComplete(t *testing.T) {
	var got []string
	for _, text := range []string{ReferenceLB7, dynamoReference(t)} {
		text = example.ReplaceAllString(commentedOut.ReplaceAllString(text, "$1"), "$1")
		var c checker
		root, ok := c.document([]byte(text))
		if !ok {
			t.Fatal(c.err())
		}
		got = append(got, keysIn(root, &rawLB7{}, "")...)
	}
	slices.Sort(got)
	want := slices.Sorted(slices.Values(keysOf(&rawLB7{}, "")))
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("keys (-known +in the reference):\n%s", diff)
	}
}
