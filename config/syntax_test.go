package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFaultsOfSyntax tells how a file that is not TOML is answered: with one
// line in our words, at the line where reading ended and with the key that it
// ended in.
func TestFaultsOfSyntax(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"a duration without quotes",
			"[pool.lb7.check]\ninterval = 1s # short\n",
			`f:2: pool.lb7.check.interval: 1s is not a value; write strings in quotes: "1s"`},
		{"an IPv6 address without quotes",
			"[bgp.peer.rr1]\naddress = 2001:db8::1\n",
			`f:2: bgp.peer.rr1.address: 2001:db8::1 is not a value; write strings in quotes: "2001:db8::1"`},
		{"a path without quotes",
			"state_dir = /var/lib/lb\n",
			`f:1: state_dir: /var/lib/lb is not a value; write strings in quotes: "/var/lib/lb"`},
		{"yes for true",
			"tcp = yes\n",
			`f:1: tcp: yes is not a value; write true or false, or a string in quotes`},
		{"a number with a zero in front",
			"[bgp]\nas = 065000\n",
			`f:2: bgp.as: 065000 is not a value; write a number without zeros in front, or a string in quotes`},
		{"no value",
			"[bgp]\nas =\n",
			`f:2: bgp.as: a value is missing or cannot be read; write one key = value on a line, and strings in quotes`},
		{"no value, and the end",
			"[bgp]\nas = ",
			`f:2: bgp.as: a value is missing or cannot be read; write one key = value on a line, and strings in quotes`},
		{"no equals sign",
			"[bgp]\nas 65000\n",
			`f:2: there is no = after the key; write one key = value on a line`},
		{"a colon for an equals sign",
			"as: 65000\n",
			`f:1: there is no = after the key; write one key = value on a line`},
		{"a key alone, and the end",
			"as",
			`f:1: there is no = after the key; write one key = value on a line`},
		{"no key",
			"= 65000\n",
			`f:1: a key cannot begin like this; write one key = value on a line, and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -`},
		{"two on a line",
			"as = 65000, listen_port = 0\n",
			`f:1: as: something stands behind the end; write one key = value on a line, and a comment after a #`},
		{"text behind a header",
			"[bgp] here\n",
			`f:1: something stands behind the end; write one key = value on a line, and a comment after a #`},
		{"a header that is not closed",
			"[bgp\nas = 65000\n",
			`f:1: a bracket is not closed; write ] at its end`},
		{"a header without a name",
			"[]\n",
			`f:1: a key cannot begin like this; write one key = value on a line, and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -`},
		{"a string that is not closed",
			"[bgp]\n\n# here\nrouter_id = \"192.0.2.1\nas = 1\n",
			`f:4: bgp.router_id: the string is not closed on its line; write it on one line, with a " at both ends`},
		{"a string that is not closed, and the end",
			"router_id = \"192.0.2.1",
			`f:1: router_id: the string is not closed; write it on one line, with a " at both ends`},
		{"a string of many lines that is not closed",
			"router_id = \"\"\"192.0.2.1\nas = 1\n",
			`f:2: router_id: the string is not closed; write it on one line, with a " at both ends`},
		{"a backslash in a string",
			"http = \"/\\d\"\n",
			`f:1: http: holds a backslash with something that it cannot stand before; write \\ for a backslash, or put the string in '...'`},
		{"half an escape in a string",
			"http = \"/\\u00\"\n",
			`f:1: http: holds a backslash with something that it cannot stand before; write \\ for a backslash, or put the string in '...'`},
		{"a control character in a string",
			"http = \"/\x01\"\n",
			`f:1: http: holds a control character or bytes that are not UTF-8; take them out, and save the file as UTF-8`},
		{"a control character in a comment",
			"# \x01\n",
			`f:1: the comment holds a control character; take it out`},
		{"Latin-1",
			"http = \"/\xe9\"\n",
			`f:1: http: holds a control character or bytes that are not UTF-8; take them out, and save the file as UTF-8`},
		{"a byte order mark",
			"\xef\xbb\xbfas = 1\n",
			`f:1: the file begins with a byte order mark; save it as UTF-8 without one`},
		{"a carriage return alone",
			"as = 1\ras = 2\n",
			`f:1: as: a carriage return stands alone; end each line with a line feed`},
		{"a list that is not closed",
			"[service.www]\nports = [\"80/tcp\",\n  \"443/tcp\",\n",
			`f:3: service.www.ports: a bracket is not closed; write ] at its end`},
		{"a list that is not closed before the next key",
			"[service.www]\nports = [\"80/tcp\"\npool = \"lb7\"\n",
			`f:3: service.www.ports: the list cannot be read; write a list as in ["80/tcp", "443/tcp"]`},
		{"a list without a comma",
			"ports = [\"80/tcp\" \"443/tcp\"]\n",
			`f:1: ports: the list cannot be read; write a list as in ["80/tcp", "443/tcp"]`},
		{"a list with a word without quotes",
			"ports = [\n  \"80/tcp\",\n  443/tcp\n]\n",
			`f:3: ports: the list cannot be read; write a list as in ["80/tcp", "443/tcp"]`},
		{"an inline table over two lines",
			"[pool]\nlb7 = { members = [\"192.0.2.1\"],\n  check = 1 }\n",
			`f:2: pool.lb7: a key cannot begin like this; write one key = value on a line, and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -`},
		{"an inline table without a comma",
			"check = { http = \"/\" port = 80 }\n",
			`f:1: check: the inline table cannot be read; write an inline table on one line, as in { http = "/", port = 80 }`},
		{"YAML",
			"bgp:\n  as: 65000\n",
			`f:1: there is no = after the key; write one key = value on a line`},
		{"JSON",
			"{\"bgp\": {\"as\": 65000}}\n",
			`f:1: a key cannot begin like this; write one key = value on a line, and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -`},
		{"a program",
			"\x7fELF\x02\x01\x01\x00",
			`f:1: a key cannot begin like this; write one key = value on a line, and the key in quotes if it has other characters than A-Z, a-z, 0-9, _ and -`},
		{"brackets that are nested too deep",
			"as = 1\nx = " + strings.Repeat("[", 1<<20),
			`f:2: brackets are nested more than 16 deep; the deepest setting needs 3`},
		{"inline tables that are nested too deep",
			"x = " + strings.Repeat("{a=", 1<<18),
			`f:1: brackets are nested more than 16 deep; the deepest setting needs 3`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tc.text))
			if err == nil {
				t.Fatal("no fault")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDepth proves that only what nests counts, and that whatever hides a
// bracket from the parser hides it from the count.
func TestDepth(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1)
	for _, tc := range []struct {
		name, text string
		line       int
	}{
		{"as deep as may be", "x = " + deep[1:], 0},
		{"one deeper", "x = " + deep, 1},
		{"closed again and again", strings.Repeat("x = [[1]]\n", 100), 0},
		{"in a comment", "# " + deep + "\n", 0},
		{"after a comment", "# x\n" + deep, 2},
		{"in a string", `x = "` + deep + `"`, 0},
		{"after an escaped quote", `x = "\"` + deep + `"`, 0},
		{"after an escaped backslash", `x = "\\"` + deep, 1},
		{"in a literal string", `x = '` + deep + `'`, 0},
		{"after a backslash in a literal string", `x = '\'` + deep, 1},
		{"after a string that is not closed", "x = \"\n" + deep, 2},
		{"after an empty string", `x = ""` + deep, 1},
		{"in a string of many lines", "x = \"\"\"\n\"" + deep + `"""`, 0},
		{"after a string of many lines", "x = \"\"\"\na\"\"\"\n" + deep, 3},
		{"after a string that ends in five quotes", `x = """a"""""` + deep, 1},
		{"after an escaped quote in a string of many lines", `x = """\"""" ` + deep, 1},
		{"in a literal string of many lines", "x = '''\n'" + deep + `'''`, 0},
		{"after a comment between quotes", "x = 1 # \"\n" + deep, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tooDeep([]byte(tc.text)); got != tc.line {
				t.Errorf("too deep in line %d, want %d", got, tc.line)
			}
		})
	}
}
