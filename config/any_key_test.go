package config

import (
	"strings"
	"testing"
)

// TestFaultsOfAnyKey tells what can be wrong with a key whichever it is, and with the keys outside of [bgp], pools and services.
func TestFaultsOfAnyKey(t *testing.T) {
	testFaults(t, []faultCase{
		{"an unknown key, almost right",
			`hold_time = "6s"`,
			`holdtime = "6s"`,
			`lb4d.toml:11: bgp.holdtime: there is no such key; did you mean hold_time?`},
		{"an unknown key, nothing like any",
			`quorum = 1`,
			`colour = "red"`,
			`lb4d.toml:57: service.www.colour: there is no such key; those that may stand here are vips, ports, pool, quorum, quorum_restore, scheduler, flags and bgp`},
		{"an unknown key in the wrong case",
			`state_dir =`,
			`State_Dir =`,
			`lb4d.toml:2: State_Dir: there is no such key; did you mean state_dir?`},
		{"an unknown table",
			`[http]
listen`,
			`[htttp]
listen`,
			`lb4d.toml:66: htttp: there is no such key; did you mean http?`},
		{"a string for a number",
			`as = 65000
router_id`,
			`as = "x"
router_id`,
			`lb4d.toml:9: bgp.as: "x" is a string; write an integer, such as 65000`},
		{"a number for a string",
			`socket = "/run/lb/lb4d.sock"`,
			`socket = 5`,
			`lb4d.toml:5: control.socket: 5 is an integer; write a string, such as "/run/lb/lb4d.sock"`},
		{"a number for a duration",
			`interval = "1s"`,
			`interval = 1`,
			`lb4d.toml:40: pool.lb7.check.interval: 1 is an integer; write a string, such as "1s"`},
		{"a string for a list",
			`members = ["192.0.2.139"]`,
			`members = "a"`,
			`lb4d.toml:28: pool.lb7.members: "a" is a string; write a list of strings, such as ["192.0.2.139", "192.0.2.140"]`},
		{"numbers in a list of strings",
			`members = ["192.0.2.139"]`,
			`members = [1,
  2]`,
			`lb4d.toml:28: pool.lb7.members[0]: 1 is an integer; write a string, such as "192.0.2.139"
lb4d.toml:29: pool.lb7.members[1]: 2 is an integer; write a string, such as "192.0.2.139"`},
		{"strings in a list of numbers",
			`expect_status = [200]`,
			`expect_status = ["200"]`,
			`lb4d.toml:38: pool.lb7.check.expect_status[0]: "200" is a string; write an integer, such as 200`},
		{"a number for a list of numbers",
			`drain_status = [503]`,
			`drain_status = 503`,
			`lb4d.toml:39: pool.lb7.check.drain_status: 503 is an integer; write a list of integers, such as [503]`},
		{"a string for true",
			`tcp = true`,
			`tcp = "true"`,
			`lb4d.toml:50: pool.ssh.check.tcp: "true" is a string; write true or false, without quotes`},
		{"a fraction",
			`rise = 2`,
			`rise = 2.5`,
			`lb4d.toml:42: pool.lb7.check.rise: 2.5 is a number with a fraction; write an integer, such as 2`},
		{"a date",
			`group = "lb"`,
			`group = 2026-01-31`,
			`lb4d.toml:6: control.group: 2026-01-31 is a date or a time; write a string, such as "lb"`},
		{"an address without quotes",
			`address = "192.0.2.254"`,
			`address = 192.0.2.254`,
			`lb4d.toml:18: bgp.peer.rr1.address: 192.0.2.254 is not a value; write a string, such as "192.0.2.254"`},
		{"a list for a quorum",
			`quorum = 1`,
			`quorum = [1]`,
			`lb4d.toml:57: service.www.quorum: is a list; write an integer or a percentage, such as 1 or "50%"`},
		{"a number past 64 bits",
			`quorum = 1`,
			`quorum = 99999999999999999999`,
			`lb4d.toml:57: service.www.quorum: 99999999999999999999 is not a value; write an integer or a percentage, such as 1 or "50%"`},
		{"a value for a table",
			`[control]
socket = "/run/lb/lb4d.sock"
group = "lb"`,
			`control = "/run/lb/lb4d.sock"`,
			`lb4d.toml:4: control: "/run/lb/lb4d.sock" is a string; write the table [control] and its keys under it`},
		{"a table for a value",
			`rise = 2`,
			`rise.to = 2`,
			`lb4d.toml:42: pool.lb7.check.rise: is a table; write an integer, such as 2`},
		{"a list of tables for a table",
			`[http]
`,
			`[[http]]
`,
			`lb4d.toml:66: http: is a list of tables; write the table [http] and its keys under it`},
		{"a list of tables for tables with names",
			`[service.www]`,
			`[[service]]`,
			`lb4d.toml:53: service: is a list of tables; write [service.www], with a name of your own, and its keys under it`},
		{"a table without its name",
			`[bgp.peer.rr1]`,
			`[bgp.peer]`,
			`lb4d.toml:18: bgp.peer.address: "192.0.2.254" is a string where a name is expected; write [bgp.peer.rr1], with a name of your own, and its keys under it
lb4d.toml:19: bgp.peer.port: 179 is an integer where a name is expected; write [bgp.peer.rr1], with a name of your own, and its keys under it
lb4d.toml:20: bgp.peer.as: 65000 is an integer where a name is expected; write [bgp.peer.rr1], with a name of your own, and its keys under it`},
		{"a key twice",
			`rise = 2`,
			`rise = 2
rise = 3`,
			`lb4d.toml:43: pool.lb7.check.rise: is there twice, first in line 42; leave one of them out`},
		{"a key twice in an inline table",
			`maintenance_file =`,
			`http = { listen = "", listen = "" }
maintenance_file =`,
			`lb4d.toml:1: http.listen: is there twice, first in line 1; leave one of them out
lb4d.toml:67: http: is something else in line 1 already; leave one of them out`},
		{"a table twice",
			`[http]`,
			`[control]
[http]`,
			`lb4d.toml:66: control: the table is there twice, first in line 4; write all its keys under one [control]`},
		{"a table for what has a value",
			`maintenance_file =`,
			`control.socket = "/run/x"
maintenance_file =`,
			`lb4d.toml:5: control: the table is there twice, first in line 1; write all its keys under one [control]
lb4d.toml:6: control.socket: is there twice, first in line 1; leave one of them out`},
		{"a table under a value",
			`[http]`,
			`[bgp.as.number]
[http]`,
			`lb4d.toml:66: bgp.as: is something else in line 9 already; leave one of them out`},
		{"a list under a table",
			`[http]`,
			`[[pool]]
[http]`,
			`lb4d.toml:66: pool: is there already, in line 25, and not as a list; write [pool] once`},
		{"a name with a space",
			`[pool.ssh]`,
			`[pool."s s h"]
[pool.ssh]`,
			`lb4d.toml:46: pool."s s h": "s s h" is not a name; write letters a to z and A to Z, digits, and . _ - only
lb4d.toml:46: pool."s s h": the pool has no member; write members = ["192.0.2.139", "192.0.2.140"]
lb4d.toml:46: pool."s s h".check: the table is missing; write [pool."s s h".check] with http = "/healthcheck", or with tcp = true and port = 80`},
		{"a name that is too long",
			`[service.ssh]`,
			`[service.` + strings.Repeat("x", 64) + `]`,
			`lb4d.toml:61: service.` + strings.Repeat("x", 64) + `: the name has 64 characters; write at most 63`},
		{"a name that is a directory",
			`[bgp.peer.rr2]`,
			`[bgp.peer.".."]`,
			`lb4d.toml:22: bgp.peer."..": ".." is not a name, because it cannot be one of a file; write at least one letter or digit`},
		{"an empty name",
			`[bgp.peer.rr2]`,
			`[bgp.peer.""]`,
			`lb4d.toml:22: bgp.peer."": "" is not a name; write letters a to z and A to Z, digits, and . _ - only`},
		{"a relative path",
			`"/etc/lb/disable"`,
			`"disable"`,
			`lb4d.toml:1: maintenance_file: "disable" is not an absolute path; write one that begins with /`},
		{"a directory for a file",
			`"/etc/lb/disable"`,
			`"/etc/lb/"`,
			`lb4d.toml:1: maintenance_file: "/etc/lb/" names a directory; write the path of a file`},
		{"a path with a line feed",
			`"/etc/lb/disable"`,
			`"/etc/lb/\ndisable"`,
			`lb4d.toml:1: maintenance_file: "/etc/lb/\ndisable" holds a control character; write the path without it`},
		{"a path that is too long",
			`"/var/lib/lb"`,
			`"/` + strings.Repeat("x", 4095) + `"`,
			`lb4d.toml:2: state_dir: the path has 4096 bytes; write at most 4095`},
		{"a socket that is too long",
			`"/run/lb/lb4d.sock"`,
			`"/run/` + strings.Repeat("x", 103) + `"`,
			`lb4d.toml:5: control.socket: the path has 108 bytes; write at most 107`},
		{"a group with a space",
			`group = "lb"`,
			`group = "l b"`,
			`lb4d.toml:6: control.group: "l b" is not the name of a group; write one such as "lb", or "" for none`},
		{"a listener without a port",
			`"127.0.0.1:9404"`,
			`"127.0.0.1"`,
			`lb4d.toml:67: http.listen: "127.0.0.1" is not host:port; write it as "127.0.0.1:9404" or "[::1]:9404", or "" to listen nowhere`},
		{"a listener with a port of 0",
			`"127.0.0.1:9404"`,
			`":0"`,
			`lb4d.toml:67: http.listen: "0" is not a port; write a number from 1 to 65535`},
		{"a listener at no host",
			`"127.0.0.1:9404"`,
			`"local host:80"`,
			`lb4d.toml:67: http.listen: "local host" is not a host; write an address as in "127.0.0.1:9404", or none as in ":9404" for all`},
		{"several faults, in the order of the lines",
			`
[bgp.peer.rr1]
address = "192.0.2.254"
port = 179`,
			`
[bgp.peer.rr1]
adress = "192.0.2.254"
port = 0`,
			`lb4d.toml:17: bgp.peer.rr1.address: is missing; write the address of the peer, such as address = "192.0.2.254"
lb4d.toml:18: bgp.peer.rr1.adress: there is no such key; did you mean address?
lb4d.toml:19: bgp.peer.rr1.port: 0 is out of range; write 1 to 65535`},
	})
}
