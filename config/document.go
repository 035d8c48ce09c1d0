package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is what sort of value a node is.
type kind int

const (
	aTable kind = iota
	aList
	aString
	anInteger
	aBoolean
	aFloat
	aDate
	// noValue is a bare word that passes TOML's scanner and still means
	// nothing, such as an address without quotes.
	noValue
)

// node is one value of the file, with the line where it stands. The library's
// decoder stops at the first wrong type and tells few positions; a tree with
// lines lets every fault be told at its place.
type node struct {
	kind kind
	// line of the key in front of the value; for a list's element, of the
	// element.
	line int

	text    string // of a string: its value; of other scalars: as in the file
	integer int64
	boolean bool

	items []*node // of a list

	keys     []string // of a table, in the order of the file
	children map[string]*node
	// explicit tells that the table has been written out and cannot be
	// opened a second time: by its [header], or by dotted keys under a
	// header that has ended since.
	explicit bool
	// headers tells that the list was made by [[headers]].
	headers bool
}

func (n *node) add(key string, child *node) {
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	n.keys = append(n.keys, key)
	n.children[key] = child
}

// builder makes the tree out of the parser's expressions.
type builder struct {
	*checker
	data  []byte
	lines []int // the offset of each line's first byte

	root    *node
	current *node // the table of the last header
	path    []string
	// read is the last line that could be read.
	read int
	// dotted are the tables made by dotted keys since the last header.
	dotted []*node
}

// document reads TOML into a tree. Where the file is not TOML, that fault is
// the only one, because whatever came after it would be guesswork; a key that
// stands there twice leaves the first value in the tree.
func (c *checker) document(data []byte) (root *node, ok bool) {
	b := &builder{checker: c, data: data, lines: []int{0}, root: &node{line: 1}}
	b.current = b.root
	for i, ch := range data {
		if ch == '\n' {
			b.lines = append(b.lines, i+1)
		}
	}
	if line := tooDeep(data); line > 0 {
		c.fault(place{line: line}, "brackets are nested more than %d deep; the deepest setting needs 3", maxDepth)
		return nil, false
	}
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			b.header(e)
		case unstable.KeyValue:
			b.set(b.current, b.path, e)
			b.read = b.line(int(e.Raw.Offset + e.Raw.Length))
		}
	}
	if err := p.Error(); err != nil {
		b.syntax(err)
		return nil, false
	}
	return b.root, true
}

// line is the line of the byte at the given offset.
func (b *builder) line(offset int) int {
	i, found := slices.BinarySearch(b.lines, offset)
	if found {
		return i + 1
	}
	return i
}

// offset is where a piece of the file begins; false where it is a copy. The
// parser hands out sub-slices of its input, which all end where its capacity
// does.
func (b *builder) offset(piece []byte) (int, bool) {
	at := cap(b.data) - cap(piece)
	if len(piece) == 0 || at < 0 || at >= len(b.data) || &b.data[at] != &piece[0] {
		return 0, false
	}
	return at, true
}

// maxParts bounds the parts of a dotted key. Each key below a table repeats
// the table's parts, so that a file of long ones would take a time that is the
// square of its size.
const maxParts = 64

// keyOf is the parts of an expression's key and the line of the last of them.
// A key with too many is a fault, and cut off.
func (b *builder) keyOf(e *unstable.Node) (parts []string, line int) {
	for it := e.Key(); it.Next(); {
		if len(parts) == maxParts {
			b.fault(placeOf(parts, line), "has more than %d parts; no key of lb4d has more than five", maxParts)
			break
		}
		parts = append(parts, string(it.Node().Data))
		line = b.line(int(it.Node().Raw.Offset))
	}
	return parts, line
}

// placeOf is the place of a key that is told by all its parts.
func placeOf(path []string, line int) place {
	var p place
	for _, part := range path {
		if len(p.key) >= maxKey {
			break
		}
		p = p.in(part, line)
	}
	p.line = line
	return p
}

// header opens the table of [a.b] or appends one for [[a.b]].
func (b *builder) header(e *unstable.Node) {
	for _, n := range b.dotted {
		n.explicit = true
	}
	b.dotted = b.dotted[:0]

	path, line := b.keyOf(e)
	b.path, b.read = path, line
	// Whatever follows a header that cannot be has still to go somewhere, so
	// that the rest of the file can be checked: into a table that nobody reads.
	b.current = &node{line: line}

	parent := b.root
	for i, part := range path[:len(path)-1] {
		child := parent.children[part]
		switch {
		case child == nil:
			child = &node{line: line}
			parent.add(part, child)
		case child.kind == aList && child.headers:
			child = child.items[len(child.items)-1]
		case child.kind != aTable || child.closed():
			b.fault(placeOf(path[:i+1], line), "is something else in line %d already; leave one of them out", child.line)
			return
		}
		parent = child
	}

	last := path[len(path)-1]
	at := placeOf(path, line)
	child := parent.children[last]
	if e.Kind == unstable.ArrayTable {
		if child == nil {
			child = &node{kind: aList, line: line, headers: true}
			parent.add(last, child)
		}
		if !child.headers {
			b.fault(at, "is there already, in line %d, and not as a list; write [%s] once", child.line, at.key)
			return
		}
		child.items = append(child.items, b.current)
		return
	}
	switch {
	case child == nil:
		child = &node{line: line}
		parent.add(last, child)
	case child.kind != aTable || child.closed():
		b.fault(at, "is something else in line %d already; leave one of them out", child.line)
		return
	case child.explicit:
		b.fault(at, "the table is there twice, first in line %d; write all its keys under one [%s]", child.line, at.key)
		// The keys of the second are checked together with the first's.
	}
	child.explicit = true
	b.current = child
}

// closed tells that the table was written inline and takes no more keys.
func (n *node) closed() bool { return n.explicit && n.text == inline }

// inline marks the text of an inline table.
const inline = "{}"

// set puts a key = value expression into a table; path is that table's.
func (b *builder) set(table *node, path []string, e *unstable.Node) {
	parts, line := b.keyOf(e)
	full := slices.Concat(path, parts)
	for i, part := range parts[:len(parts)-1] {
		child := table.children[part]
		switch {
		case child == nil:
			child = &node{line: line}
			table.add(part, child)
			b.dotted = append(b.dotted, child)
		case child.kind != aTable || child.explicit:
			b.fault(placeOf(full[:len(path)+i+1], line), "is there already, in line %d; write this key there", child.line)
			return
		}
		table = child
	}
	last := parts[len(parts)-1]
	if first := table.children[last]; first != nil {
		b.fault(placeOf(full, line), "is there twice, first in line %d; leave one of them out", first.line)
		return
	}
	table.add(last, b.value(e.Value(), line, full))
}

// value makes the node of a value that stands in the given line.
func (b *builder) value(v *unstable.Node, line int, path []string) *node {
	n := &node{line: line, text: string(v.Data)}
	switch v.Kind {
	case unstable.String:
		n.kind = aString
	case unstable.Bool:
		n.kind, n.boolean = aBoolean, n.text == "true"
	case unstable.Integer:
		n.kind = anInteger
		var ok bool
		if n.integer, ok = integer(n.text); !ok {
			n.kind = noValue
		}
	case unstable.Float:
		n.kind = noValue
		if _, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimLeft(n.text, "+-"), "_", ""), 64); err == nil {
			n.kind = aFloat
		}
	case unstable.Array:
		n.kind = aList
		for it := v.Children(); it.Next(); {
			line = b.lineOf(it.Node(), line)
			n.items = append(n.items, b.value(it.Node(), line, path))
		}
	case unstable.InlineTable:
		n.explicit, n.text = true, inline
		for it := v.Children(); it.Next(); {
			b.set(n, path, it.Node())
		}
	default:
		n.kind = aDate
	}
	return n
}

// lineOf is the line of a list's element, and that of the element before
// where the parser does not tell.
func (b *builder) lineOf(v *unstable.Node, before int) int {
	for ; v != nil; v = v.Child() {
		if v.Raw.Length > 0 {
			return b.line(int(v.Raw.Offset))
		}
		if at, ok := b.offset(v.Data); ok {
			return b.line(at)
		}
	}
	return before
}

// integer is what TOML's integers allow: a sign, and single underscores
// between digits. The parser has let only digits, signs and underscores
// through, or a prefix of 0x, 0o or 0b with its digits.
func integer(s string) (int64, bool) {
	number := strings.TrimLeft(s, "+-")
	if strings.HasPrefix(number, "0") && len(number) > 1 && !strings.ContainsAny(number[1:2], "xob") {
		return 0, false // a leading zero would be octal to Go
	}
	if len(s) > 2 && s[0] == '0' && s[2] == '_' {
		return 0, false // Go lets an underscore follow the prefix, TOML does not
	}
	i, err := strconv.ParseInt(s, 0, 64)
	return i, err == nil
}
