package health

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxHeader is how many bytes of an answer are read at most, status line and
// header fields together.
const maxHeader = 8 << 10

// get sends the request and judges the answer.
//
// It is written by hand rather than with net/http because a check needs so
// little of it: the status, once the header is complete. Nothing is followed,
// no proxy is asked, no body is read, and no more than maxHeader bytes are held.
func get(conn net.Conn, start time.Time, target Target, check Check) Answer {
	// A target that answers and closes without reading the request may make
	// the write fail, and its answer is still the better witness. Only where
	// there is none does the write's error count: the kernel tells of a reset
	// once, to whichever call comes first.
	_, sent := io.WriteString(conn, request(target, check))
	status, n, err := readStatus(conn)
	if sent != nil && errors.Is(err, io.EOF) && n == 0 {
		err = sent
	}
	var malformed malformedError
	switch {
	case errors.As(err, &malformed):
		return failed(start, string(malformed))
	case err != nil:
		return failed(start, answerWords(err, n, check))
	case slices.Contains(check.DrainStatus, status.code):
		return Answer{Verdict: Drain, Words: status.String() + " (drain)", Latency: time.Since(start)}
	case slices.Contains(check.ExpectStatus, status.code):
		latency := time.Since(start)
		return Answer{Verdict: Pass, Words: status.String() + " in " + short(latency), Latency: latency}
	}
	return failed(start, fmt.Sprintf("status %d, want %s", status.code, listed(check.ExpectStatus)))
}

// request is the GET request of a check.
func request(target Target, check Check) string {
	host := check.Host
	if host == "" {
		// A zone has a meaning on this host alone and no place in a Host
		// header.
		at := check.address(target).WithZone("")
		host = at.String()
		if at.Is6() {
			host = "[" + host + "]"
		}
		if check.Port != 80 {
			host += ":" + strconv.Itoa(int(check.Port))
		}
	}
	return "GET " + check.HTTP + " HTTP/1.1\r\n" +
		"Host: " + host + "\r\n" +
		"User-Agent: lb4d\r\n" +
		"Connection: close\r\n\r\n"
}

// padded is a request filled up to size bytes with a header field that means
// nothing; ok tells whether there is room for one.
func padded(request string, size int) (text string, ok bool) {
	const field = "X-Padding: "
	missing := size - len(request) - len(field+"\r\n")
	if missing < 0 {
		return "", false
	}
	return strings.TrimSuffix(request, "\r\n") + field + strings.Repeat("x", missing) + "\r\n\r\n", true
}

// statusLine is what counts of an answer.
type statusLine struct {
	code   int
	phrase string
}

// String is the status as the target put it, made harmless.
func (s statusLine) String() string {
	return strings.TrimSpace(strconv.Itoa(s.code) + " " + escaped(s.phrase, 64))
}

// interim tells that another response follows this one (RFC 9110 section 15.2).
// 101 is final: what follows it is another protocol.
func (s statusLine) interim() bool { return s.code/100 == 1 && s.code != 101 }

// malformedError is an answer that came and is none, in words.
type malformedError string

func (e malformedError) Error() string { return string(e) }

// readStatus reads until the header of the final response is complete, and
// returns the status and how many bytes were read.
func readStatus(r io.Reader) (statusLine, int, error) {
	// Most answers fit the first piece; what is longer is paid for only then.
	buf := make([]byte, 0, 512)
	interim := 0 // bytes of interim responses, done with
	for {
		status, length, err := parseHeader(buf[interim:])
		switch {
		case err != nil:
			return statusLine{}, len(buf), err
		case length > 0 && status.interim():
			interim += length
			continue
		case length > 0:
			return status, len(buf), nil
		case len(buf) == maxHeader:
			return statusLine{}, len(buf), malformedError(fmt.Sprintf("header is longer than %d bytes", maxHeader))
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, min(2*cap(buf), maxHeader)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return statusLine{}, len(buf), err
		}
	}
}

// httpVersion is how every answer begins (RFC 9112 section 4). HTTP/1.0 is
// accepted: nothing that it lacks matters here.
const httpVersion = "HTTP/1."

// parseHeader takes the header at the start of an answer that may still be
// growing; its length is 0 while it is not complete. It fails as soon as the
// answer can no longer become one, so that a wrong protocol is told from a slow
// target.
func parseHeader(b []byte) (status statusLine, length int, err error) {
	known := min(len(b), len(httpVersion))
	if string(b[:known]) != httpVersion[:known] {
		return statusLine{}, 0, malformedError("answer is not HTTP: " + quoted(b))
	}
	// A bare LF ends a line too (RFC 9112 section 2.2).
	line, fields, ended := bytes.Cut(b, []byte("\n"))
	if !ended {
		return statusLine{}, 0, nil
	}
	status, err = parseStatusLine(bytes.TrimSuffix(line, []byte("\r")))
	if err != nil {
		return statusLine{}, 0, err
	}
	for ended {
		line, fields, ended = bytes.Cut(fields, []byte("\n"))
		if ended && len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return status, len(b) - len(fields), nil
		}
	}
	return statusLine{}, 0, nil
}

// parseStatusLine takes "HTTP/1.1 200 OK" apart. The phrase may be missing.
func parseStatusLine(line []byte) (statusLine, error) {
	version, rest, _ := strings.Cut(string(line[len(httpVersion):]), " ")
	code, phrase, _ := strings.Cut(rest, " ")
	// A leading 0 would be a status below 100, and there is none.
	if len(version) != 1 || !digits(version) || len(code) != 3 || !digits(code) || code[0] == '0' {
		return statusLine{}, malformedError("bad status line: " + quoted(line))
	}
	number, err := strconv.Atoi(code)
	if err != nil {
		return statusLine{}, malformedError("bad status line: " + quoted(line))
	}
	return statusLine{code: number, phrase: strings.TrimSpace(phrase)}, nil
}

// digits tells that s has no character but 0 to 9. strconv alone would let a
// sign pass.
func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// quoted is the beginning of what a target sent, escaped.
func quoted(b []byte) string {
	return `"` + escaped(string(b), 32) + `"`
}

// listed names the accepted statuses: "200", "200 or 204".
func listed(codes []int) string {
	words := make([]string, len(codes))
	for i, code := range codes {
		words[i] = strconv.Itoa(code)
	}
	return strings.Join(words, " or ")
}
