package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"
)

// answer is a whole answer of an HTTP server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get asks for a URL and reads the whole answer, of at most MaxBytes, also after
// decompression. Its errors do not hold what the URL may hold of secrets.
func get(ctx context.Context, client *http.Client, address string, header http.Header, timeout time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fault := func(doing string, err error) (answer, error) {
		if timedOut(err) {
			return answer{}, fmt.Errorf("%s %s: timeout after %v", doing, bareURL(address), timeout)
		}
		// An url.Error has the whole URL in its text.
		if outer := (*url.Error)(nil); errors.As(err, &outer) {
			err = outer.Err
		}
		return answer{}, fmt.Errorf("%s %s: %w", doing, bareURL(address), err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fault("asking", err)
	}
	for key, values := range header {
		request.Header[key] = values
	}
	response, err := client.Do(request)
	if err != nil {
		return fault("asking", err)
	}
	defer response.Body.Close()
	body, err := readBounded(response.Body)
	if err != nil {
		return fault("reading the answer of", err)
	}
	return answer{response.StatusCode, response.Header, body}, nil
}

// unexpected is the error of a status that is none of those expected, with the
// first line of what the server says of it where that is text.
func (a answer) unexpected(address string) error {
	said := ""
	if kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); kind == "text/plain" || kind == "" {
		if line, _, _ := bytes.Cut(bytes.TrimSpace(a.body), []byte("\n")); len(line) > 0 {
			said = ": " + printable(string(line[:min(len(line), 200)]))
		}
	}
	return fmt.Errorf("asking %s: it answered %d %s%s", bareURL(address), a.status, http.StatusText(a.status), said)
}

// maxToken is the length of a token's file.
const maxToken = 16 << 10

// bearToken adds the token in the file at path, if there is one to add. The
// token is in no error.
func bearToken(header http.Header, key, prefix, path string) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening the token: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	token := bytes.TrimSpace(data)
	switch {
	case err != nil:
		return fmt.Errorf("reading the token: %w", err)
	case len(data) > maxToken:
		return fmt.Errorf("reading the token: %s has more than %d bytes", path, maxToken)
	case len(token) == 0:
		return fmt.Errorf("reading the token: %s is empty", path)
	case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("reading the token: %s holds more than one word", path)
	}
	header.Set(key, prefix+string(token))
	return nil
}
