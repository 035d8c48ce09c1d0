package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"
)

const (
	// window is how many commands are sent ahead of their replies. All of a
	// window's commands and replies fit the sockets' buffers, so that neither
	// side can end up waiting for the other to read.
	window = 32
	// maxReply bounds the reply to a change, in bytes. The longest is the
	// list of all commands, after one that HAProxy does not know.
	maxReply = 64 << 10
)

// Do carries the commands out, in order, in one session. The errors are one
// for each command, nil where HAProxy did as told; a command that is refused
// does not keep the next from being sent. Where the session breaks, those
// without a reply get the reason: they may or may not have been carried out.
func (c *Client) Do(ctx context.Context, commands ...Command) []error {
	errs := make([]error, len(commands))
	if len(commands) == 0 {
		return errs
	}
	fail := func(from int, err error) []error {
		for i := from; i < len(errs); i++ {
			errs[i] = commands[i].failed(ctx, err)
		}
		return errs
	}
	s, done, err := c.open(ctx)
	if err != nil {
		return fail(0, err)
	}
	defer done()
	for at := 0; at < len(commands); {
		end, size := at, 0
		for end < len(commands) && end-at < window && size < maxPayload {
			size += len(commands[end].text())
			end++
		}
		if err := s.send(c.prefix, commands[at:end]); err != nil {
			return fail(at, plain(err))
		}
		for ; at < end; at++ {
			reply, err := s.reply(ctx)
			if err != nil {
				return fail(at, plain(err))
			}
			errs[at] = commands[at].judge(reply)
		}
	}
	return errs
}

// session is one connection in prompt mode.
type session struct {
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
}

// open starts a session and asks for severities. A master socket would pass
// that on to a worker that forgets it after one command, so there it is left
// out.
func (c *Client) open(ctx context.Context) (*session, func(), error) {
	conn, done, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := &session{conn: conn, in: bufio.NewReader(conn), timeout: c.timeout}
	hello := []string{"prompt"}
	if c.prefix == "" {
		hello = append(hello, "set severity-output number")
	}
	for _, line := range hello {
		err = s.write(line + "\n")
		if err == nil {
			_, err = s.reply(ctx)
		}
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("opening a session: %w", plain(err))
		}
	}
	return s, done, nil
}

func (s *session) write(text string) error {
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	_, err := io.WriteString(s.conn, text)
	return err
}

// send writes several commands at once.
func (s *session) send(prefix string, commands []Command) error {
	var b strings.Builder
	for _, c := range commands {
		if c.payload != "" {
			// Payloads change the prompt and so have a connection of their own.
			return errors.New("a payload does not fit a session")
		}
		b.WriteString(prefix)
		b.WriteString(c.text())
	}
	return s.write(b.String())
}

// prompt is how a line starts that is none but HAProxy's invitation to go on:
// bare on a stats socket; "master", or a worker's process number, with flags,
// on a master socket.
var prompt = regexp.MustCompile(`^(?:(?:master|[0-9]+)(?:\([a-z]*\)|\[[A-Za-z]*\])*)?> $`)

// reply reads up to the next prompt.
func (s *session) reply(ctx context.Context) (string, error) {
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var reply, line []byte
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			// What a master says of a process that does not exist is followed
			// by the end, not by a prompt.
			if text := strings.TrimSpace(string(append(reply, line...))); text != "" {
				return "", fmt.Errorf("HAProxy says %q, then %w", clip(text), err)
			}
			return "", err
		}
		line = append(line, b)
		switch {
		case b == '\n':
			reply = append(reply, line...)
			line = line[:0]
		case b == ' ' && len(line) < 64 && prompt.Match(line):
			return string(reply), nil
		}
		if len(reply)+len(line) > maxReply {
			return "", fmt.Errorf("a reply over %d bytes", maxReply)
		}
	}
}
