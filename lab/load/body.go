package load

import (
	"bytes"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
)

const (
	// maxHead bounds a request's or an answer's first line and headers.
	maxHead = 32 << 10
	// maxBody bounds a body.
	maxBody = 1 << 30
)

// wrongError is an answer that came and is not what it should be.
type wrongError string

func (e wrongError) Error() string { return string(e) }

func wrongf(format string, args ...any) error { return wrongError(fmt.Sprintf(format, args...)) }

// message is the first line and the headers of a request or an answer.
type message struct {
	line   string
	fields []string // "Name: value"
}

// splitHead takes a message off the front of b. It returns a negative length
// where b does not hold the whole head yet.
func splitHead(b []byte) (m message, length int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return m, -1, wrongError("the headers are too long")
		}
		return m, -1, nil
	}
	if end > maxHead {
		return m, -1, wrongError("the headers are too long")
	}
	lines := strings.Split(string(b[:end]), "\r\n")
	return message{line: lines[0], fields: lines[1:]}, end + 4, nil
}

// get returns a header's value, "" where there is none.
func (m message) get(name string) string {
	for _, f := range m.fields {
		if k, v, ok := strings.Cut(f, ":"); ok && strings.EqualFold(k, name) {
			return textproto.TrimString(v)
		}
	}
	return ""
}

// body follows an answer's body as its pieces come.
type body struct {
	length  int64 // -1 where only the connection's end tells
	pattern bool  // it must be the pattern
	chunked bool
	got     int64

	// Of a chunked body (RFC 9112 7.1): what is left of the chunk, and the
	// beginning of a line that has not come whole.
	chunk int64
	line  []byte
	last  bool // the trailer has begun
}

// newBody learns from the headers how the body will end (RFC 9112 6.3).
func newBody(m message) (body, error) {
	b := body{length: -1, pattern: m.get(headerPattern) != ""}
	if strings.EqualFold(m.get("Transfer-Encoding"), "chunked") {
		b.chunked = true
		return b, nil
	}
	if s := m.get("Content-Length"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > maxBody {
			return b, wrongf("the length is %q", s)
		}
		b.length = n
	}
	return b, nil
}

// feed takes the next piece and tells whether the body is whole.
func (b *body) feed(p []byte) (whole bool, err error) {
	if b.chunked {
		return b.feedChunked(p)
	}
	if b.length >= 0 {
		p = p[:min(int64(len(p)), b.length-b.got)]
	}
	err = b.take(p)
	return b.got == b.length, err
}

// take counts and compares a piece of the content itself.
func (b *body) take(p []byte) error {
	if b.pattern && !matches(p, b.got) {
		return wrongf("the body differs from what was sent, between bytes %d and %d", b.got, b.got+int64(len(p)))
	}
	if b.got += int64(len(p)); b.got > maxBody {
		return wrongError("the body is too long")
	}
	return nil
}

func (b *body) feedChunked(p []byte) (whole bool, err error) {
	for len(p) > 0 {
		if b.chunk > 0 {
			n := min(int64(len(p)), b.chunk)
			if err := b.take(p[:n]); err != nil {
				return false, err
			}
			b.chunk -= n
			p = p[n:]
			continue
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			b.line = append(b.line, p...)
			if len(b.line) > maxHead {
				return false, wrongError("a chunk's size is too long")
			}
			return false, nil
		}
		line := string(bytes.TrimRight(append(b.line, p[:end]...), "\r"))
		b.line, p = nil, p[end+1:]
		switch size, _, _ := strings.Cut(line, ";"); {
		case b.last && line == "":
			return true, nil
		case b.last:
			// A field of the trailer.
		case line == "" && b.got > 0:
			// The end of the chunk before.
		default:
			if b.chunk, err = strconv.ParseInt(textproto.TrimString(size), 16, 64); err != nil || b.chunk < 0 {
				return false, wrongf("%.20q is no chunk's size", line)
			}
			b.last = b.chunk == 0
		}
	}
	return false, nil
}

// end tells whether the connection may end here.
func (b *body) end() error {
	switch {
	case b.chunked:
		return wrongf("the body ends in the middle of a chunk, after %d bytes", b.got)
	case b.length >= 0 && b.got < b.length:
		return wrongf("the body ends after %d bytes of %d", b.got, b.length)
	}
	return nil
}
