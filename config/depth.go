package config

import "bytes"

// maxDepth bounds how deep brackets may be nested. The parser calls itself for
// each one and has no bound of its own: a megabyte of them would end the
// process for lack of stack, which nothing can recover from.
const maxDepth = 16

// tooDeep is the line where brackets are nested deeper than maxDepth, or 0. It
// skips what TOML skips: comments and the four sorts of strings.
func tooDeep(data []byte) (line int) {
	depth := 0
	for i := 0; i < len(data); {
		switch data[i] {
		case '[', '{':
			if depth++; depth > maxDepth {
				return 1 + bytes.Count(data[:i], []byte("\n"))
			}
		case ']', '}':
			depth--
		case '#':
			i += lengthTo(data[i:], "\n")
			continue
		case '"', '\'':
			i += stringLength(data[i:])
			continue
		}
		i++
	}
	return 0
}

// lengthTo is the length of b up to the mark or its end.
func lengthTo(b []byte, mark string) int {
	if i := bytes.Index(b, []byte(mark)); i >= 0 {
		return i
	}
	return len(b)
}

// stringLength is the length of the string that b begins with, quotes
// included. A string that is never closed ends with its line, as it does for
// the parser.
func stringLength(b []byte) int {
	quote := b[0]
	escapes := quote == '"'
	triple := bytes.Repeat(b[:1], 3)
	if bytes.HasPrefix(b, triple) {
		for i := 3; i < len(b); i++ {
			if escapes && b[i] == '\\' {
				i++
			} else if bytes.HasPrefix(b[i:], triple) {
				// Two more quotes may belong to the text: """a"""""
				end := i + 3
				for end < len(b) && end < i+5 && b[end] == quote {
					end++
				}
				return end
			}
		}
		return len(b)
	}
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == quote:
			return i + 1
		case b[i] == '\n':
			return i
		case escapes && b[i] == '\\':
			i++
		}
	}
	return len(b)
}
