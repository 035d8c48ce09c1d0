package directory

import (
	"strings"
	"testing"
)

func TestHostOf(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, label[:61]}, ".")
	for _, c := range []struct {
		header, host string
		plain        bool
		fault        string // empty: none
	}{
		{"www.example.org", "www.example.org", true, ""},
		{"WWW.Example.ORG:8443", "www.example.org", true, ""},
		{"www.example.org.", "www.example.org", false, ""},
		{"www.example.org.:80", "www.example.org", false, ""},
		{"localhost", "localhost", true, ""},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", true, ""},
		{"_dmarc.a_b.example", "_dmarc.a_b.example", true, ""},
		{"1.2.3.4.example", "1.2.3.4.example", true, ""},
		{"a--b.example", "a--b.example", true, ""},
		{long, long, true, ""},
		{long + "a", "", true, "254 bytes, more than 253"},
		{"a." + label + "a", "", true, "more than 63"},
		{"", "", true, "empty"},
		{":80", "", true, "empty"},
		{".", "", false, "empty"},
		{"a..b", "", true, "a label that is empty"},
		{".a", "", true, "a label that is empty"},
		{"a..", "", false, "a label that is empty"},
		{"-a.example", "", true, "'-' at byte 1"},
		{"a-.example", "", true, "ends in a hyphen"},
		{"a.example-", "", true, "ends in a hyphen"},
		{"192.0.2.1", "", true, "an address or a number"},
		{"192.0.2.1:80", "", true, "an address or a number"},
		{"[2001:db8::1]:80", "", true, "'['"},
		{"[2001:db8::1]", "", true, "'['"},
		{"2001:db8::1", "", true, "':'"},
		{"a b", "", true, "' '"},
		{"a;show env", "", true, "';'"},
		{"a\nb", "", true, "'\\n'"},
		{"bücher.example", "", true, "at byte 2"},
		{"a/../b", "", true, "'/'"},
		{"user@example.org", "", true, "'@'"},
		{"#0x1", "", true, "'#'"},
	} {
		host, plain, err := hostOf(c.header)
		switch {
		case c.fault == "" && (err != nil || host != c.host || plain != c.plain):
			t.Errorf("%q: %q, %t, %v; want %q, %t", c.header, host, plain, err, c.host, c.plain)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || plain != c.plain):
			t.Errorf("%q: %q, %t, %v; want an error with %q", c.header, host, plain, err, c.fault)
		}
	}
}

// What passes is one word for HAProxy, and the key that it would look up.
func FuzzHostOf(f *testing.F) {
	f.Add("www.example.org:80")
	f.Add("a\\ b;c")
	f.Fuzz(func(t *testing.T, header string) {
		host, _, err := hostOf(header)
		if err != nil {
			return
		}
		if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || host == "" || len(host) > maxHost {
			t.Errorf("%q becomes %q", header, host)
		}
		if again, plain, err := hostOf(host); again != host || !plain || err != nil {
			t.Errorf("%q becomes %q, and that %q (%v)", header, host, again, err)
		}
	})
}
