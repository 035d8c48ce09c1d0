package agent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestThousandAtOnce: each of a thousand that ask at the same time is answered,
// while the file changes under them, and nothing is left open.
func TestThousandAtOnce(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxConnections = 300 })
	address := s.Status().Listen
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := Write(s.file, []string{"drain", "down", "up"}[i%3], "round"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const many = 1000
	conns := make([]net.Conn, many)
	var dialers sync.WaitGroup
	for i := range conns {
		dialers.Go(func() {
			c, err := net.DialTimeout("tcp", address[i%2].String(), 30*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			c.SetDeadline(time.Now().Add(30 * time.Second))
			conns[i] = c
		})
	}
	dialers.Wait()
	good := map[string]bool{"up drain # round\n": true, "down ready # round\n": true, "up ready # round\n": true, "up ready\n": true}
	for _, c := range conns {
		if c == nil {
			continue
		}
		b, err := io.ReadAll(c)
		if err != nil || !good[string(b)] {
			t.Errorf("answer %q, error %v", b, err)
		}
		c.Close()
	}
	close(stop)
	writer.Wait()
	st := s.Status()
	if st.Questions != many {
		t.Errorf("%d questions, want %d", st.Questions, many)
	}
	for deadline := time.Now().Add(20 * time.Second); s.Status().Open > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still held", s.Status().Open)
		}
	}
}

// TestSlowReaders: who neither reads nor closes holds a connection for the
// timeout and no longer, and keeps nobody from an answer.
func TestSlowReaders(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxConnections, o.Timeout = 2, time.Second })
	address := s.Status().Listen[0]
	for range 10 {
		c, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); s.Status().Questions < 10; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.Status())
		}
	}
	if st := s.Status(); st.Hurried < 8 || st.Open > 2 {
		t.Errorf("%d hurried and %d held, want at least 8 and at most 2", st.Hurried, st.Open)
	}
	if got := ask(t, address); got != "up ready\n" {
		t.Errorf("answer %q", got)
	}
	for deadline := time.Now().Add(20 * time.Second); s.Status().Open > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection is held for good")
		}
	}
}

// TestQuestionIsNoReset: a question that is sent first (agent-send) does not cost
// the answer.
func TestQuestionIsNoReset(t *testing.T) {
	s := serve(t)
	for range 50 {
		c, err := net.Dial("tcp", s.Status().Listen[0].String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, strings.Repeat("question ", 50))
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil || string(b) != "up ready\n" {
			t.Errorf("answer %q, error %v", b, err)
		}
		c.Close()
	}
}

// TestReload: listeners come and go, those that stay are not closed, and a fault
// changes nothing.
func TestReload(t *testing.T) {
	s := serve(t)
	before := s.Status().Listen
	o := Options{File: s.file, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:0"), netip.MustParseAddrPort("127.0.0.1:0")}}
	if err := s.Reload(o); err != nil {
		t.Fatal(err)
	}
	after := s.Status().Listen
	if len(after) != 2 || after[1] != before[0] {
		t.Errorf("listens on %v after %v: the one that stays has moved", after, before)
	}
	if got := ask(t, after[0]); got != "up ready\n" {
		t.Errorf("the new one answers %q", got)
	}
	if c, err := net.Dial("tcp", before[1].String()); err == nil {
		c.Close()
		t.Errorf("%s still listens", before[1])
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Listen = append(o.Listen, netip.MustParseAddrPort(taken.Addr().String())) }, "another program has it"},
		{func(o *Options) { o.Listen = nil }, "no address"},
		{func(o *Options) { o.File = "" }, "no file"},
		{func(o *Options) { o.Default = "yes" }, `"yes" is none of HAProxy's words`},
		{func(o *Options) {
			o.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5555"), netip.MustParseAddrPort("[::ffff:127.0.0.1]:5555")}
		}, "named twice"},
	} {
		bad := o
		bad.Listen = append([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.3:0")}, o.Listen...)
		tt.change(&bad)
		if err := s.Reload(bad); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
		if now := s.Status().Listen; fmt.Sprint(now) != fmt.Sprint(after) {
			t.Errorf("after a fault it listens on %v, want %v", now, after)
		}
	}
	// An address that the host does not have yet.
	o.Listen = append(o.Listen, netip.MustParseAddrPort("192.0.2.77:0"), netip.MustParseAddrPort("[2001:db8::77]:0"))
	if err := s.Reload(o); err != nil {
		t.Errorf("an address that comes later: %v", err)
	}
	// Another default, and another file.
	o.Default = "up"
	if err := s.Reload(o); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, after[0]); got != "up\n" {
		t.Errorf("with another default: %q", got)
	}
	s.Close()
	if err := s.Reload(o); err == nil {
		t.Error("a closed agent was reloaded")
	}
}

// TestFiles: what is at the path, and what is answered or told for it.
func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // answer, or part of the fault
	}{
		{"a pipe", func(t *testing.T, p string) { must(t, syscall.Mkfifo(p, 0o644)) }, "no regular file but p"},
		{"a directory", func(t *testing.T, p string) { must(t, os.Mkdir(p, 0o755)) }, "no regular file but d"},
		{"a device", func(t *testing.T, p string) { must(t, os.Symlink("/dev/zero", p)) }, "no regular file but D"},
		{"a link to a file", func(t *testing.T, p string) {
			must(t, os.WriteFile(p+".real", []byte("drain\n"), 0o644))
			must(t, os.Symlink(p+".real", p))
		}, "up drain"},
		{"a link that leads nowhere", func(t *testing.T, p string) { must(t, os.Symlink("nowhere", p)) }, "a link that leads nowhere"},
		{"a link to itself", func(t *testing.T, p string) { must(t, os.Symlink(p, p)) }, "link"},
		{"too large", func(t *testing.T, p string) { must(t, os.WriteFile(p, bytes.Repeat([]byte("# \n"), 2000), 0o644)) }, "more than 4096 bytes"},
		{"as large as may be", func(t *testing.T, p string) {
			must(t, os.WriteFile(p, append(bytes.Repeat([]byte("#"), maxFile-6), "\ndrain"...), 0o644))
		}, "up drain"},
		{"a sparse file", func(t *testing.T, p string) {
			must(t, os.WriteFile(p, nil, 0o644))
			must(t, os.Truncate(p, 1<<40))
		}, "more than 4096 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t)
			tt.make(t, s.file)
			got := ask(t, s.Status().Listen[0])
			st := s.Status()
			if st.Fault == nil && got != tt.want+"\n" || st.Fault != nil && (!strings.Contains(st.Fault.Error(), tt.want) || got != "up ready\n") {
				t.Errorf("answer %q, fault %v; want %q", got, st.Fault, tt.want)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
