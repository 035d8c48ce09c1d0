package runtime

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// Each command as it would be sent; an empty want says that it must not be.
func TestCommands(t *testing.T) {
	cmd := func(c Command, err error) func() (Command, error) {
		return func() (Command, error) { return c, err }
	}
	for _, tt := range []struct {
		name string
		got  func() (Command, error)
		want string
	}{
		{"address", cmd(SetServerAddr("servers", "s1", addr("192.0.2.1:80"))), "set server servers/s1 addr 192.0.2.1 port 80"},
		{"IPv6", cmd(SetServerAddr("servers", "s1", addr("[2001:db8::1]:80"))), "set server servers/s1 addr 2001:db8::1 port 80"},
		{"IPv4 in IPv6", cmd(SetServerAddr("servers", "s1", addr("[::ffff:192.0.2.1]:80"))), "set server servers/s1 addr 192.0.2.1 port 80"},
		{"port 0", cmd(SetServerAddr("servers", "s1", addr("192.0.2.1:0"))), ""},
		{"no address", cmd(SetServerAddr("servers", "s1", netip.AddrPort{})), ""},
		{"unspecified", cmd(SetServerAddr("servers", "s1", addr("0.0.0.0:80"))), ""},
		{"multicast", cmd(SetServerAddr("servers", "s1", addr("224.0.0.1:80"))), ""},
		{"broadcast", cmd(SetServerAddr("servers", "s1", addr("255.255.255.255:80"))), ""},
		{"zone", cmd(SetServerAddr("servers", "s1", addr("[fe80::1%eth0]:80"))), ""},
		{"ready", cmd(SetServerState("servers", "s1", Ready)), "set server servers/s1 state ready"},
		{"drain", cmd(SetServerState("servers", "s1", Drain)), "set server servers/s1 state drain"},
		{"maint", cmd(SetServerState("servers", "s1", Maint)), "set server servers/s1 state maint"},
		{"no state", cmd(SetServerState("servers", "s1", "gone;quit")), ""},
		{"health up", cmd(SetServerHealth("servers", "s1", true)), "set server servers/s1 health up"},
		{"health down", cmd(SetServerHealth("servers", "s1", false)), "set server servers/s1 health down"},
		{"weight", cmd(SetServerWeight("servers", "s1", 256)), "set server servers/s1 weight 256"},
		{"great weight", cmd(SetServerWeight("servers", "s1", 257)), ""},
		{"negative weight", cmd(SetServerWeight("servers", "s1", -1)), ""},
		{"agent off", cmd(EnableAgent("servers", "s1", false)), "disable agent servers/s1"},
		{"check on", cmd(EnableCheck("servers", "s1", true)), "enable health servers/s1"},
		{"add", cmd(AddServer("servers", "s11", addr("[::1]:80"), "check", "id", "11")), "add server servers/s11 [::1]:80 check id 11"},
		{"add with two words in one", cmd(AddServer("servers", "s11", addr("[::1]:80"), "check id 11")), ""},
		{"delete", cmd(DelServer("servers", "s11")), "del server servers/s11"},
		{"a back end with a slash", cmd(SetServerState("servers/s2", "s1", Ready)), ""},
		{"a server by number", cmd(SetServerState("servers", "#1", Ready)), ""},
		{"a server with a newline", cmd(SetServerState("servers", "s1\nshow env", Ready)), ""},
		{"a server with a space", cmd(SetServerState("servers", "s1 state ready", Ready)), ""},
		{"a server in UTF-8", cmd(SetServerState("servers", "sérvers", Ready)), ""},
		{"map entry", cmd(AddMap("/etc/pods.map", "www.example.org", "pod1")), "add map /etc/pods.map www.example.org pod1"},
		{"map change", cmd(SetMap("/etc/pods.map", "www.example.org", "pod1")), "set map /etc/pods.map www.example.org pod1"},
		{"map deletion", cmd(DelMap("/etc/pods.map", "www.example.org")), "del map /etc/pods.map www.example.org"},
		{"a second command in a value", cmd(AddMap("/etc/pods.map", "www.example.org", "pod1;shutdown")), ""},
		{"a second line in a value", cmd(AddMap("/etc/pods.map", "www.example.org", "pod1\nshow env")), ""},
		{"a value that escapes", cmd(AddMap("/etc/pods.map", "www.example.org", `pod1\`)), ""},
		{"a value that starts a payload", cmd(AddMap("/etc/pods.map", "www.example.org", "<<")), ""},
		{"an empty value", cmd(AddMap("/etc/pods.map", "www.example.org", "")), ""},
		{"a key that is a reference", cmd(DelMap("/etc/pods.map", "#0x1")), ""},
		{"a map that is a version", cmd(DelMap("@1", "www.example.org")), ""},
		{"a key of 1 MB", cmd(AddMap("/etc/pods.map", strings.Repeat("a", 1<<20), "pod1")), ""},
		{"a line that is too long", cmd(AddServer("servers", "s11", addr("[::1]:80"), strings.Fields(strings.Repeat(strings.Repeat("x", 1000)+" ", 5))...)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.got()
			if got.String() != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %q and error %v, want %q", got, err, tt.want)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// Whatever the bytes, what passes CheckWord is one word of one line.
func FuzzCheckWord(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "a;b", "a\nb", `a\`, "a<<", "é", "\x00", "a\tb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := CheckWord(s)
		bad := s == "" || len(s) > maxWord || len(strings.Fields(s)) != 1 || strings.ContainsAny(s, ";\\\n\r\x00 \t\v\f") || strings.Contains(s, "<<")
		if bad && err == nil {
			t.Errorf("%q passes", s)
		}
		if err != nil && !errors.Is(err, ErrWord) {
			t.Errorf("%v is no ErrWord", err)
		}
	})
}

func TestJudge(t *testing.T) {
	ready, _ := SetServerState("b", "s", Ready)
	move, _ := SetServerAddr("b", "s", addr("192.0.2.1:80"))
	for _, tt := range []struct {
		name    string
		command Command
		reply   string
		want    string // of the error; empty: none
		is      error
	}{
		{name: "nothing said", command: ready, reply: "\n"},
		{name: "an error", command: ready, reply: "[3]: No such server.\n\n", want: `HAProxy refuses "set server b/s state ready": No such server.`, is: ErrNotFound},
		{name: "an error without its severity", command: ready, reply: "No such server.\n\n", want: `HAProxy refuses "set server b/s state ready": No such server.`, is: ErrNotFound},
		{name: "not allowed", command: ready, reply: "[3]: Permission denied\n\n", want: `HAProxy refuses "set server b/s state ready": Permission denied`, is: ErrDenied},
		{name: "an unknown command, called mere information", command: ready, reply: "[6]: Unknown command. Please enter\n  show map\n", want: `HAProxy refuses "set server b/s state ready": Unknown command. Please enter`},
		{name: "moved", command: move, reply: "[4]: IP changed from '192.0.2.2' to '192.0.2.1' by 'stats socket command'\n\n"},
		{name: "moved, over a master socket", command: move, reply: "IP changed from '192.0.2.2' to '192.0.2.1' by 'stats socket command'\n\n"},
		{name: "already there", command: move, reply: "[4]: no need to change the addr, no need to change the port by 'stats socket command'\n\n"},
		{name: "nothing said where something should be", command: move, reply: "\n", want: `HAProxy refuses "set server b/s addr 192.0.2.1 port 80": (an empty reply)`},
		{name: "an error that looks like success", command: move, reply: "[3]: IP changed from here\n", want: `HAProxy refuses "set server b/s addr 192.0.2.1 port 80": IP changed from here`},
		{name: "control characters", command: ready, reply: "[3]: a\x1b[31mb\x00\n", want: `HAProxy refuses "set server b/s state ready": a[31mb`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.command.judge(tt.reply)
			if got := errText(err); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		address, process string
		ok               bool
	}{
		{"/run/haproxy/admin.sock", "", true},
		{"unix@/run/haproxy/master.sock", "@1", true},
		{"127.0.0.1:9999", "@!4711", true},
		{"[::1]:9999", "", true},
		{"", "", false},
		{"admin.sock", "", false},
		{"localhost:9999", "", false},
		{"/run/haproxy/master.sock", "@1;", false},
		{"/run/haproxy/master.sock", "1", false},
	} {
		if _, err := New(tt.address, Options{Process: tt.process}); (err == nil) != tt.ok {
			t.Errorf("New(%q, %q): %v", tt.address, tt.process, err)
		}
	}
}
