package config

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// complaint is a fault of syntax in our words. The parser's own speak of
// grammar and Unicode points, and change between its versions.
type complaint struct {
	// says is a part of the parser's message.
	says string
	// message is what is wrong and what would be right.
	message string
	// word tells that the value may only lack its quotes.
	word bool
}

const (
	notClosed   = `a bracket is not closed; write ] at its end`
	writeKey    = `write one key = value on a line`
	writeString = `write it on one line, with a " at both ends`
	writeInline = `write an inline table on one line, as in { http = "/", port = 80 }`
	writeList   = `write a list as in ["80/tcp", "443/tcp"]`
	writeEscape = `write \\ for a backslash, or put the string in '...'`
)

// complaints are searched from the top; the first that fits is told.
var complaints = []complaint{
	{says: "invalid UTF-8", message: "holds a control character or bytes that are not UTF-8; take them out, and save the file as UTF-8"},
	{says: "array is incomplete", message: notClosed},
	{says: "array", message: "the list cannot be read; " + writeList},
	{says: "inline table is incomplete", message: "the inline table is not closed; " + writeInline},
	{says: "expected character }", message: "the inline table is not closed; " + writeInline},
	{says: "expected character ,", message: "the inline table cannot be read; " + writeInline},
	{says: "expected character ]", message: notClosed},
	{says: "expected character =", message: "there is no = after the key; " + writeKey},
	{says: "expected = after a key", message: "there is no = after the key; " + writeKey},
	{says: "expected key", message: "a key is missing; " + writeKey},
	{says: "at start of key", message: "a key cannot begin like this; " + writeKey + ", and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -"},
	{says: "cannot have new lines", message: "the string is not closed on its line; " + writeString},
	{says: "terminated", message: "the string is not closed; " + writeString},
	{says: "not allowed in multiline", message: "too many quotes in a row; " + writeString},
	{says: "escape", message: "holds a backslash with something that it cannot stand before; " + writeEscape},
	{says: "after \\", message: "holds a backslash with nothing behind it; " + writeEscape},
	{says: "hex", message: "holds a backslash with something that it cannot stand before; " + writeEscape},
	{says: "unicode point", message: "holds a backslash with something that it cannot stand before; " + writeEscape},
	{says: "comment", message: "the comment holds a control character; take it out"},
	{says: "invalid character", message: "the string holds a control character; take it out"},
	{says: "new line", message: "a carriage return stands alone; end each line with a line feed"},
	{says: `\r`, message: "a carriage return stands alone; end each line with a line feed"},
	{says: "expected newline", message: "something stands behind the end; " + writeKey + ", and a comment after a #", word: true},
	{says: "", message: "a value is missing or cannot be read; " + writeKey + ", and strings in quotes", word: true},
}

// syntax tells, in our words, where and why the parser gave up.
func (b *builder) syntax(err error) {
	var (
		parse   *unstable.ParserError
		at      = len(bytes.TrimRight(b.data, " \t\r\n")) // where the file ends too early
		message string
	)
	if errors.As(err, &parse) {
		if offset, ok := b.offset(parse.Highlight); ok {
			at = offset
		}
		message = parse.Message
	}
	line := b.line(at)
	if line == 1 && bytes.HasPrefix(b.data, []byte("\xef\xbb\xbf")) {
		b.fault(place{line: 1}, "the file begins with a byte order mark; save it as UTF-8 without one")
		return
	}
	p := place{line: line}
	key, value := split(b.source(b.begins(line)))
	if key != nil {
		p = placeOf(slices.Concat(b.path, key), line)
	}
	if strings.HasPrefix(value, "[") && strings.Contains(message, "not eof") {
		b.fault(p, notClosed)
		return
	}
	for _, c := range complaints {
		if !strings.Contains(message, c.says) {
			continue
		}
		if word := bareWord(value); c.word && word != "" {
			b.fault(p, "%s is not a value; %s", head(word, maxQuoted), unquoted(word))
			return
		}
		b.fault(p, "%s", c.message)
		return
	}
}

// begins is the line where the expression begins that could not be read: the
// first one with something in it after the last that could. It is at most the
// given line, where the parser gave up.
func (b *builder) begins(last int) int {
	for line := b.read + 1; line < last; line++ {
		if text := bytes.TrimSpace(b.source(line)); len(text) > 0 && text[0] != '#' {
			return line
		}
	}
	return last
}

// source is the text of a line.
func (b *builder) source(line int) []byte {
	from := b.lines[line-1]
	return b.data[from : from+lengthTo(b.data[from:], "\n")]
}

// keyValue is a line that sets a key. It need not be right in every case: it
// serves to name the key in a line that could not be read.
var keyValue = regexp.MustCompile(`^\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=\s*(.*?)\s*$`)

// split takes a line apart that looks like key = value.
func split(source []byte) (key []string, value string) {
	m := keyValue.FindSubmatch(source)
	if m == nil {
		return nil, ""
	}
	for part := range strings.SplitSeq(string(m[1]), ".") {
		key = append(key, strings.TrimSpace(part))
	}
	return key, string(m[2])
}

// word is what people write without quotes: a duration, an address, a name.
var word = regexp.MustCompile(`^[A-Za-z0-9/.:%_-]+$`)

// bareWord is the value where it lacks only its quotes, or empty.
func bareWord(value string) string {
	value, _, _ = strings.Cut(value, " #")
	value = strings.TrimSpace(value)
	if !word.MatchString(value) {
		return ""
	}
	return value
}

// unquoted tells what a word without quotes should have been.
func unquoted(word string) string {
	switch strings.ToLower(word) {
	case "true", "yes", "on", "false", "no", "off":
		return "write true or false, or a string in quotes"
	}
	if strings.Trim(word, digits) == "" {
		return "write a number without zeros in front, or a string in quotes"
	}
	return "write strings in quotes: " + quote(word)
}
