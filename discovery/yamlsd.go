package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// maxElements is how many elements a list in YAML may be made of. Each server may
// have a group of its own with a label on each of sixty lines.
const maxElements = 64 * MaxServers

// maxKeys is how many keys may be in one place. The parser compares each of them
// with each other: a quarter of a million would keep it busy for minutes.
const maxKeys = 512

// ParseYAML reads a list in the YAML form of Prometheus's file_sd, by the rules
// of ParseJSON.
func ParseYAML(data []byte) (entries []Entry, err error) {
	if n := elements(data); n > maxElements {
		return nil, fmt.Errorf("parsing YAML: there are about %d lines and elements, and %d is the most", n, maxElements)
	}
	// The parser is a large one, and it reads what a stranger wrote. A list
	// that it trips over costs that list and not the daemon.
	defer func() {
		if fault := recover(); fault != nil {
			entries, err = nil, fmt.Errorf("parsing YAML: the parser gave up: %v", fault)
		}
	}()
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	if n := widest(&tree); n > maxKeys {
		return nil, fmt.Errorf("parsing YAML: there are %d keys in one place, and %d is the most", n, maxKeys)
	}
	var groups []*yamlGroup
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&groups); errors.Is(err, io.EOF) {
		// Prometheus takes this for an empty list. But it is what a file
		// looks like that is being rewritten in place.
		return nil, errors.New("parsing YAML: it is empty (an empty list is [])")
	} else if err != nil {
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	if groups == nil {
		return nil, errors.New("parsing YAML: there is no list (an empty list is [])")
	}
	var more yaml.Node
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("parsing YAML: there is more after the list")
	}
	entries = []Entry{}
	for _, g := range groups {
		if g == nil {
			return nil, errors.New("parsing YAML: a group is null")
		}
		if len(entries)+len(g.Targets) > MaxServers {
			return nil, tooMany(len(entries) + len(g.Targets))
		}
		entries = group{g.Targets, g.Labels}.add(entries)
	}
	return entries, nil
}

// yamlGroup is an element of the list. The parser takes any scalar for a string.
type yamlGroup struct {
	Targets []string          `yaml:"targets"`
	Labels  map[string]string `yaml:"labels"`
}

// elements is about how many nodes a document has, and never less than a third
// of them. The parser makes a tree of the whole document before anything else,
// with more than 600 bytes for a node, so two letters can take 300 times their
// room.
func elements(data []byte) int {
	n := 0
	for i, c := range data {
		switch c {
		case ',', '[', '{', '?', '\n', '\r':
			n++
		case '-':
			if i+1 < len(data) && (data[i+1] == ' ' || data[i+1] == '\t') {
				n++
			}
		case 0x85, 0xa8, 0xa9: // the last byte of U+0085, U+2028, U+2029: line ends too
			n++
		}
	}
	return n
}

// widest is the number of keys of the largest mapping in a tree. It follows no
// alias: what that stands for is in the tree already.
func widest(node *yaml.Node) int {
	n := 0
	if node.Kind == yaml.MappingNode {
		n = len(node.Content) / 2
	}
	for _, child := range node.Content {
		n = max(n, widest(child))
	}
	return n
}
