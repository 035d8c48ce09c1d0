package agent

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// served is an agent that listens on free ports of both families, with its log.
type served struct {
	*Server
	file string
	log  *bytes.Buffer
}

// serve starts an agent for a file that does not exist yet.
func serve(t *testing.T, change ...func(*Options)) *served {
	t.Helper()
	o := Options{
		File:   filepath.Join(t.TempDir(), "agent-check"),
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")},
	}
	for _, c := range change {
		c(&o)
	}
	log := &bytes.Buffer{}
	s, err := New(o, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &served{Server: s, file: o.File, log: log}
}

// put writes content into the file, as an editor that replaces it.
func (s *served) put(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(s.file+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		t.Fatal(err)
	}
}

// ask returns all that an address answers.
func ask(t *testing.T, address netip.AddrPort) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address.String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAnswers: what is answered while the file goes through its states, at both
// families, and what the log says of it.
func TestAnswers(t *testing.T) {
	s := serve(t)
	for _, step := range []struct {
		content string // "-" removes the file
		want    string
		source  Source
	}{
		{"-", "up ready\n", FromDefault},
		{"drain # new disk\n", "up drain # new disk\n", FromFile},
		{"", "up drain # new disk\n", FromLastGood},
		{"drian\n", "up drain # new disk\n", FromLastGood},
		{"drian\n", "up drain # new disk\n", FromLastGood},
		{"DOWN", "down ready\n", FromFile},
		{"50%, maxconn:30\n", "up ready 50% maxconn:30\n", FromFile},
		{"-", "up ready\n", FromDefault},
	} {
		if step.content == "-" {
			if err := os.Remove(s.file); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		} else {
			s.put(t, step.content)
		}
		for _, a := range s.Status().Listen {
			if got := ask(t, a); got != step.want {
				t.Errorf("content %q: %s answers %q, want %q", step.content, a, got, step.want)
			}
		}
		st := s.Status()
		if st.Source != step.source || st.Answer+"\n" != step.want || (st.Fault != nil) != (step.source == FromLastGood) {
			t.Errorf("content %q: status %q from %s, fault %v", step.content, st.Answer, st.Source, st.Fault)
		}
	}
	if st := s.Status(); st.Questions != 16 || st.Faults != 6 {
		t.Errorf("%d questions, %d faults, want 16 and 6", st.Questions, st.Faults)
	}
	if n := strings.Count(s.log.String(), "not understood"); n != 2 {
		t.Errorf("%d warnings, want one for each of two faults:\n%s", n, s.log)
	}
}
