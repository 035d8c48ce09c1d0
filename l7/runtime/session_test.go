package runtime

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake is a socket that does with each connection as it is told.
func fake(t *testing.T, o Options, serve func(in *bufio.Reader, conn net.Conn)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(bufio.NewReader(conn), conn)
			}()
		}
	}()
	c, err := New(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scripted answers each line with what answers has for it, and an invitation.
func scripted(invitation string, answers map[string]string) func(*bufio.Reader, net.Conn) {
	return func(in *bufio.Reader, conn net.Conn) {
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			answer, ok := answers[strings.TrimSpace(line)]
			if !ok {
				answer = "\n"
			}
			_, _ = conn.Write([]byte(answer + invitation))
		}
	}
}

func ready(t *testing.T, server string) Command {
	t.Helper()
	c, err := SetServerState("b", server, Ready)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// One refusal in the middle is the error of its own command only, whatever
// the invitation looks like.
func TestDoKeepsRepliesApart(t *testing.T) {
	for _, invitation := range []string{"> ", "master> ", "4711> ", "master[ReloadFailed]> ", "4711(xe)> "} {
		prefix := ""
		if invitation != "> " {
			prefix = "@1"
		}
		c := fake(t, Options{Process: prefix, Timeout: 5 * time.Second}, scripted(invitation, map[string]string{
			strings.TrimSpace(prefix + " set server b/s2 state ready"): "No such server.\nfurther > lines\n\n",
		}))
		errs := c.Do(t.Context(), ready(t, "s1"), ready(t, "s2"), ready(t, "s3"))
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("with %q: %v", invitation, errs)
		}
	}
}

// More commands than one window holds, in order, each with its own reply.
func TestDoManyCommands(t *testing.T) {
	c := fake(t, Options{}, scripted("> ", map[string]string{"set server b/s77 state ready": "[3]: No such server.\n\n"}))
	var commands []Command
	for i := range 1000 {
		commands = append(commands, ready(t, "s"+string(rune('0'+i/100%10))+string(rune('0'+i/10%10))))
	}
	failed := 0
	for i, err := range c.Do(t.Context(), commands...) {
		if (err != nil) != (commands[i].String() == "set server b/s77 state ready") {
			t.Fatalf("%s: %v", commands[i], err)
		}
		if err != nil {
			failed++
		}
	}
	if failed != 10 {
		t.Errorf("%d failed, want 10", failed)
	}
}

// Sockets that misbehave cost a bounded time and memory, and each command
// that got no reply has an error that names it.
func TestMisbehaviour(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(in *bufio.Reader, conn net.Conn)
		want  string
	}{
		{"says nothing", func(in *bufio.Reader, conn net.Conn) { _, _ = in.ReadString(0) }, "i/o timeout"},
		{"hangs up", func(in *bufio.Reader, conn net.Conn) { _, _ = in.ReadString('\n') }, ""},
		{"talks without end", func(in *bufio.Reader, conn net.Conn) {
			for chunk := []byte(strings.Repeat("x", 4096)); ; {
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}, "a reply over 65536 bytes"},
		{"names no such process", func(in *bufio.Reader, conn net.Conn) {
			_, _ = in.ReadString('\n')
			_, _ = conn.Write([]byte("\n> \n> Can't find the target PID\n"))
			_, _ = in.ReadString('\n')
			_, _ = in.ReadString('\n')
		}, `HAProxy says "Can't find the target PID"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fake(t, Options{Timeout: 200 * time.Millisecond}, tt.serve)
			errs := c.Do(t.Context(), ready(t, "s1"), ready(t, "s2"))
			for i, err := range errs {
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "b/s") {
					t.Errorf("command %d: %v, want %q", i, err, tt.want)
				}
			}
		})
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	c := fake(t, Options{Timeout: time.Minute}, func(in *bufio.Reader, conn net.Conn) { _, _ = in.ReadString(0) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := c.Do(ctx, ready(t, "s1"))[0]; err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v, want the context's end", err)
	}
	if _, err := c.ShowInfo(ctx); err == nil {
		t.Error("ShowInfo outlives its context")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNobodyThere(t *testing.T) {
	c, err := New(filepath.Join(t.TempDir(), "none"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), ready(t, "s1"))[0]; err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("got %v", err)
	}
}
