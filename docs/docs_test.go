// Package docs holds the documentation; its test keeps the configuration that
// it shows true.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lb4d/config"
	"lb4d/discovery"
)

// fenced is a block of a page, with its language.
var fenced = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// pages are all pages, with the configuration that their blocks belong to.
func pages(t *testing.T) map[string]func(name string, data []byte) error {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	if err != nil || len(paths) < 5 {
		t.Fatalf("pages %q, %v", paths, err)
	}
	all := map[string]func(string, []byte) error{}
	for _, path := range append(paths, "../README.md") {
		switch path {
		case "lb7.md", "directory.md", "migration.md":
			all[path] = func(name string, data []byte) error { _, err := config.ParseLB7(name, data); return err }
		default:
			all[path] = func(name string, data []byte) error { _, err := config.Parse(name, data); return err }
		}
	}
	return all
}

// TestConfiguration: whatever is shown as configuration is accepted as it
// stands, and whatever is shown as a list of servers is read as one.
func TestConfiguration(t *testing.T) {
	blocks := 0
	for path, parse := range pages(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range fenced.FindAllSubmatchIndex(text, -1) {
			line := strings.Count(string(text[:at[0]]), "\n") + 2
			name, block := fmt.Sprintf("%s line %d", path, line), text[at[4]:at[5]]
			switch language := string(text[at[2]:at[3]]); language {
			case "toml":
				blocks++
				if err := parse(name, block); err != nil {
					t.Error(err)
				}
			case "json", "yaml":
				blocks++
				read := discovery.ParseJSON
				if language == "yaml" {
					read = discovery.ParseYAML
				}
				if list, err := read(block); err != nil || len(list) == 0 {
					t.Errorf("%s: %d servers, %v", name, len(list), err)
				}
			}
		}
	}
	if blocks < 7 {
		t.Errorf("%d blocks were read; are they still written as fenced ones?", blocks)
	}
}

// indented is a part of a configuration that is set in by spaces.
var indented = regexp.MustCompile(`(?m)^ +\[[a-z]+[.a-z0-9_]*\]\n(?:(?: +.*)?\n)*`)

// TestParts: a part of a configuration is accepted beside what the reference
// file has.
func TestParts(t *testing.T) {
	parts := 0
	for path, parse := range pages(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole := config.Reference
		if path == "directory.md" || path == "lb7.md" {
			whole = config.ReferenceLB7
		}
		for _, part := range indented.FindAllString(string(text), -1) {
			if strings.Contains(part, "neighbors") { // of another program's
				continue
			}
			parts++
			if err := parse(path, []byte(into(whole, part))); err != nil {
				t.Errorf("%s:\n%s\n%v", path, part, err)
			}
		}
	}
	if parts < 3 {
		t.Errorf("%d parts were found", parts)
	}
}

// into puts the lines of a part under the tables of a whole, in place of those
// that set the same key there.
func into(whole, part string) string {
	table := ""
	for line := range strings.Lines(part) {
		line = strings.TrimSpace(line)
		key, _, isKey := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "["):
			table = "\n" + line + "\n"
			if !strings.Contains(whole, table) {
				whole += table
			}
		case isKey:
			before, after, _ := strings.Cut(whole, table)
			inside, rest, more := strings.Cut(after, "\n[")
			if more {
				rest = "\n[" + rest
			}
			inside = regexp.MustCompile(`(?m)^`+key+` = .*$`).ReplaceAllString(inside, "")
			whole = before + table + line + "\n" + inside + rest
		}
	}
	return whole
}

// keyInCode is a setting in the text, "key = value" between backquotes.
var keyInCode = regexp.MustCompile("`([a-z][a-z_]+) = [^`]*`")

// TestKeys: each setting that a page names is a key of one of the reference
// files.
func TestKeys(t *testing.T) {
	named := 0
	for path := range pages(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range keyInCode.FindAllStringSubmatch(string(text), -1) {
			named++
			key := regexp.MustCompile(`(?m)^[# ]*` + m[1] + ` = `)
			if !key.MatchString(config.Reference) && !key.MatchString(config.ReferenceLB7) {
				t.Errorf("%s: %s is a key of neither reference file", path, m[0])
			}
		}
	}
	if named < 10 {
		t.Errorf("%d settings were found", named)
	}
}
