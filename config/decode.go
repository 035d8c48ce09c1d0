package config

import (
	"fmt"
	"slices"
	"strings"
)

// field is one key of a table.
type field struct {
	key string
	// to receives the value.
	to target
	// example is a value that would be right, as it is written in the file.
	example string
}

// target receives the value of one key. A value of the wrong type is noted as
// a fault and left out, so that whatever else is wrong is told too.
type target interface {
	take(c *checker, n *node, at place, example string)
}

// given is what is known of any key.
type given struct {
	place
	// present: the key is in the file. ok: and its value has the right type.
	present, ok bool
}

// text receives a string.
type text struct {
	given
	value string
}

func (t *text) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == aString}
	if !t.ok {
		c.wrongType(n, at, "a string", example)
		return
	}
	t.value = n.text
}

// number receives an integer.
type number struct {
	given
	value int64
}

func (t *number) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == anInteger}
	if !t.ok {
		c.wrongType(n, at, "an integer", example)
		return
	}
	t.value = n.integer
}

// boolean receives true or false.
type boolean struct {
	given
	value bool
}

func (t *boolean) take(c *checker, n *node, at place, _ string) {
	t.given = given{at, true, n.kind == aBoolean}
	if !t.ok {
		c.fault(at, "%s; write true or false, without quotes", n.describe())
		return
	}
	t.value = n.boolean
}

// texts receives a list of strings. It is ok where it is a list; an element
// of the wrong type stays in it as one that is not ok.
type texts struct {
	given
	values []text
}

func (t *texts) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == aList}
	if !t.ok {
		c.wrongType(n, at, "a list of strings", example)
		return
	}
	t.values = make([]text, len(n.items))
	for i, item := range n.items {
		t.values[i].take(c, item, at.element(i, item.line), element(example))
	}
}

// numbers receives a list of integers, as texts does one of strings.
type numbers struct {
	given
	values []number
}

func (t *numbers) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == aList}
	if !t.ok {
		c.wrongType(n, at, "a list of integers", example)
		return
	}
	t.values = make([]number, len(n.items))
	for i, item := range n.items {
		t.values[i].take(c, item, at.element(i, item.line), element(example))
	}
}

// namedText is one of several strings with names.
type namedText struct {
	text
	name string
}

// namedTexts receives a table of strings under names that the file chooses.
type namedTexts struct {
	given
	entries []namedText // in the order of the file
}

func (t *namedTexts) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == aTable}
	if !t.ok {
		c.fault(at, "%s; write the table %s, with names of your own", n.describe(), example)
		return
	}
	for _, name := range n.keys {
		value := n.children[name]
		e := namedText{name: name}
		here := at.in(name, value.line)
		c.name(here, name)
		e.take(c, value, here, `"65000:100"`)
		t.entries = append(t.entries, e)
	}
}

// element is the first element of a list as it is written in the file.
func element(list string) string {
	first, _, _ := strings.Cut(strings.Trim(list, "[]"), ",")
	return first
}

// share receives an integer or a percentage: 2, or "50%".
type share struct {
	number number
	text   text
}

func (t *share) take(c *checker, n *node, at place, example string) {
	switch n.kind {
	case anInteger:
		t.number.take(c, n, at, example)
	case aString:
		t.text.take(c, n, at, example)
	default:
		c.wrongType(n, at, "an integer or a percentage", example)
	}
}

// table is what every raw table embeds: its place, and its name where it is
// one of several, as lb7 in [pool.lb7].
type table struct {
	given
	name string
}

func (t *table) base() *table { return t }

// rawTable is a pointer to a raw table.
type rawTable interface {
	base() *table
	// fields are the keys that the table may have.
	fields() []field
}

// section receives a table.
type section struct{ rawTable }

func (s section) take(c *checker, n *node, at place, example string) {
	s.base().given = given{at, true, n.kind == aTable}
	if n.kind != aTable {
		c.fault(at, "%s; write the table %s and its keys under it", n.describe(), example)
		return
	}
	fields := s.fields()
	for _, key := range n.keys {
		value := n.children[key]
		here := at.in(key, value.line)
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if i < 0 {
			c.unknown(here, key, fields)
			continue
		}
		fields[i].to.take(c, value, here, fields[i].example)
	}
}

// tables receives a table of named tables, as [pool.NAME].
type tables[T any, P interface {
	*T
	rawTable
}] struct {
	given
	// entries are in the order of the file. One that is no table stays among
	// them and is not ok.
	entries []P
}

func (t *tables[T, P]) take(c *checker, n *node, at place, example string) {
	t.given = given{at, true, n.kind == aTable}
	if !t.ok {
		c.fault(at, "%s; write %s, with a name of your own, and its keys under it", n.describe(), example)
		return
	}
	for _, name := range n.keys {
		value := n.children[name]
		here := at.in(name, value.line)
		entry := P(new(T))
		entry.base().name = name
		t.entries = append(t.entries, entry)
		if value.kind != aTable {
			entry.base().given = given{place: here, present: true}
			c.fault(here, "%s where a name is expected; write %s, with a name of your own, and its keys under it", value.describe(), example)
			continue
		}
		section{entry}.take(c, value, here, "")
		c.name(here, name)
	}
}

// entry is a new table of this sort, for those who list the keys.
func (t *tables[T, P]) entry() rawTable { return P(new(T)) }

// wrongType notes that a value has another type than its key wants.
func (c *checker) wrongType(n *node, at place, want, example string) {
	c.fault(at, "%s; write %s, such as %s", n.describe(), want, example)
}

// unknown notes a key that no table of this sort has.
func (c *checker) unknown(at place, key string, fields []field) {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if near := closest(key, known); near != "" {
		c.fault(at, "there is no such key; did you mean %s?", near)
		return
	}
	c.fault(at, "there is no such key; those that may stand here are %s", list(known, "and"))
}

// describe says in words what a node is.
func (n *node) describe() string {
	shown := head(n.text, maxQuoted)
	switch n.kind {
	case aTable:
		return "is a table"
	case aList:
		if n.headers {
			return "is a list of tables"
		}
		return "is a list"
	case aString:
		return quote(n.text) + " is a string"
	case anInteger:
		return shown + " is an integer"
	case aBoolean:
		return shown + " is a boolean"
	case aFloat:
		return shown + " is a number with a fraction"
	case aDate:
		return shown + " is a date or a time"
	}
	return fmt.Sprintf("%s is not a value", shown)
}
