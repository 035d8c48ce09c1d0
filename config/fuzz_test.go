package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// FuzzParse proves of any file that it is either a configuration or a list of
// faults that a terminal and a log can take: one line each, bounded, printable,
// in the order of the lines, which the file has. The same file gives the same
// answer each time.
func FuzzParse(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("lb4d.toml", data)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("configuration %v with error %v", cfg, err)
		}
		if _, again := Parse("lb4d.toml", data); err != nil && again.Error() != err.Error() {
			t.Errorf("first\n%v\nand then\n%v", err, again)
		}
		if err == nil {
			return
		}
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("the error is a %T", err)
		}
		lines := strings.Count(string(data), "\n") + 1
		last := 0
		for _, fault := range faults {
			if fault.Line < max(last, 1) || fault.Line > lines {
				t.Errorf("line %d of %d after line %d: %s", fault.Line, lines, last, fault)
			}
			last = fault.Line
			line := fault.String()
			if len(line) > maxLine || !utf8.ValidString(line) {
				t.Errorf("%d bytes: %q", len(line), line)
			}
			if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("byte %d does not print: %q", i, line)
			}
			for _, jargon := range []string{"toml:", "strconv", "netip", "ParseAddr", "%!", "U+00", "config.", "github"} {
				if strings.Contains(fault.Message, jargon) && !strings.Contains(string(data), jargon) {
					t.Errorf("speaks of %q: %s", jargon, line)
				}
			}
		}
	})
}

// FuzzDocument compares the tree of a file with what the library's own decoder
// makes of it: both must take the same files and find the same values.
func FuzzDocument(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if tooDeep(data) > 0 {
			return // the decoder would not survive it
		}
		var c checker
		root, ok := c.document(data)
		ok = ok && len(c.faults) == 0 && !root.has(noValue)
		var table map[string]any
		err := toml.Unmarshal(data, &table)
		if ok && err != nil && (root.has(aFloat) || root.has(aDate)) {
			return // no key takes either, so nobody asks whether they are right
		}
		if ok != (err == nil) {
			t.Fatalf("tree: %v %v; decoder: %v", ok, c.err(), err)
		}
		if !ok {
			return
		}
		if diff := cmp.Diff(plain(table), root.plain()); diff != "" {
			t.Errorf("values (-decoder +tree):\n%s", diff)
		}
	})
}

// has tells that a value of the given kind is somewhere in a node.
func (n *node) has(k kind) bool {
	if n.kind == k {
		return true
	}
	for _, child := range n.children {
		if child.has(k) {
			return true
		}
	}
	return slices.ContainsFunc(n.items, func(item *node) bool { return item.has(k) })
}

// plain is a node as maps, slices and scalars, and a word for those that no
// key takes.
func (n *node) plain() any {
	switch n.kind {
	case aTable:
		table := make(map[string]any)
		for key, child := range n.children {
			table[key] = child.plain()
		}
		return table
	case aList:
		list := []any{}
		for _, item := range n.items {
			list = append(list, item.plain())
		}
		return list
	case aString:
		return n.text
	case anInteger:
		return n.integer
	case aBoolean:
		return n.boolean
	}
	return "other"
}

// plain is what the decoder made, in the same shape.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		table := make(map[string]any)
		for key, child := range v {
			table[key] = plain(child)
		}
		return table
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, plain(item))
		}
		return list
	case string, int64, bool:
		return v
	}
	return "other"
}

// seeds are the files in testdata, the examples, and the odd corners of TOML.
func seeds(f *testing.F) []string {
	f.Helper()
	all := []string{
		Minimal, Reference, full,
		commentedOut.ReplaceAllString(Reference, "$1"),
		"", "\n", "[bgp]\nas = 1s\n", "a.b = 1\na.c = 2\n[a]\n", "[a.b]\n[a]\nb.c = 1\n",
		"[a.b.c]\n[a]\nb.x = 1\n", "[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\n", "[a]\n[[a]]\n", "a = []\n[[a]]\n",
		"a = {b = 1}\n[a.c]\n", "a = {b.c = 1, b.d = 2}\na.e = 1\n", "\"a\\u0062\" = '''x'''\n",
		"x = [1, [2, {y = 3}],\n # c\n \"\"\"\nz\"\"\"]\n", "x = 0x1f\ny = 1_000\nz = 1__0\n", "x = 0x_1\n", "x = +0\ny = -0\n",
		"x = 1.5e3\ny = inf\nz = -nan\nw = 1.2.3\n", "x = 1979-05-27T07:32:00Z\ny = 07:32:00\nz = 1979-05-27\n",
		"pool.\"\x7f\".check.http = \"\\u001b[2J\\u202e\"\n", "[service.x]\nquorum = \"٣%\"\nports = [\"8 0/tcp\"]\n",
	}
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}
