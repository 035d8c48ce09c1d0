package config

import "testing"

// TestFaultsOfBGP tells what can be wrong with [bgp] and its peers.
func TestFaultsOfBGP(t *testing.T) {
	testFaults(t, []faultCase{
		{"no as",
			`as = 65000
router_id`,
			`router_id`,
			`lb4d.toml:8: bgp.as: is missing; write the number of your autonomous system, such as as = 65000`},
		{"as 0",
			`as = 65000
router_id`,
			`as = 0
router_id`,
			`lb4d.toml:9: bgp.as: 0 is reserved and numbers no autonomous system; write 1 to 4294967294`},
		{"an as past 32 bits",
			`as = 65000
router_id`,
			`as = 4294967296
router_id`,
			`lb4d.toml:9: bgp.as: 4294967296 is out of range; write 1 to 4294967294`},
		{"a negative as",
			`as = 65000
router_id`,
			`as = -1
router_id`,
			`lb4d.toml:9: bgp.as: -1 is out of range; write 1 to 4294967294`},
		{"no router_id",
			`router_id = "192.0.2.132"
`,
			"",
			`lb4d.toml:8: bgp.router_id: is missing; write an IPv4 address of this host, such as router_id = "192.0.2.132"`},
		{"a router_id that is IPv6",
			`router_id = "192.0.2.132"`,
			`router_id = "2001:db8::1"`,
			`lb4d.toml:10: bgp.router_id: "2001:db8::1" is not an IPv4 address; write one of this host, such as "192.0.2.132"`},
		{"a router_id of zeros",
			`router_id = "192.0.2.132"`,
			`router_id = "0.0.0.0"`,
			`lb4d.toml:10: bgp.router_id: "0.0.0.0" identifies nobody; write an IPv4 address of this host, such as "192.0.2.132"`},
		{"a router_id that is no address",
			`router_id = "192.0.2.132"`,
			`router_id = "lb4-1"`,
			`lb4d.toml:10: bgp.router_id: "lb4-1" is not an IPv4 address; write one of this host, such as "192.0.2.132"`},
		{"a hold_time of zero",
			`hold_time = "6s"`,
			`hold_time = "0s"`,
			`lb4d.toml:11: bgp.hold_time: "0s" is too short; write "3s" to "65535s"`},
		{"a hold_time of two seconds",
			`hold_time = "6s"`,
			`hold_time = "2s"`,
			`lb4d.toml:11: bgp.hold_time: "2s" is too short; write "3s" to "65535s"`},
		{"a hold_time past 16 bits",
			`hold_time = "6s"`,
			`hold_time = "65536s"`,
			`lb4d.toml:11: bgp.hold_time: "65536s" is too long; write "3s" to "65535s"`},
		{"a hold_time in parts of a second",
			`hold_time = "6s"`,
			`hold_time = "6500ms"`,
			`lb4d.toml:11: bgp.hold_time: "6500ms" is not in whole seconds, and BGP knows no others; write "6s" or "7s"`},
		{"a duration without a unit",
			`hold_time = "6s"`,
			`hold_time = "6"`,
			`lb4d.toml:11: bgp.hold_time: "6" is not a duration; write it as "1s" or "500ms"`},
		{"a duration with an unknown unit",
			`hold_time = "6s"`,
			`hold_time = "1x"`,
			`lb4d.toml:11: bgp.hold_time: "1x" is not a duration; write it as "1s" or "500ms"`},
		{"a negative drain_time",
			`drain_time = "5s"`,
			`drain_time = "-1s"`,
			`lb4d.toml:14: bgp.drain_time: "-1s" is too short; write "0s" to "10m"`},
		{"a drain_time that is too long",
			`drain_time = "5s"`,
			`drain_time = "11m"`,
			`lb4d.toml:14: bgp.drain_time: "11m" is too long; write "0s" to "10m"`},
		{"a graceful_restart that is too long",
			`graceful_restart = "60s"`,
			`graceful_restart = "2h"`,
			`lb4d.toml:13: bgp.graceful_restart: "2h" is too long; write "0s" to "4095s"`},
		{"a graceful_restart in parts of a second",
			`graceful_restart = "60s"`,
			`graceful_restart = "1500ms"`,
			`lb4d.toml:13: bgp.graceful_restart: "1500ms" is not in whole seconds, and BGP knows no others; write "1s" or "2s"`},
		{"a graceful_restart that is no duration",
			`graceful_restart = "60s"`,
			`graceful_restart = "on"`,
			`lb4d.toml:13: bgp.graceful_restart: "on" is not a duration; write it as "1s" or "500ms"`},
		{"a listen_port that is too high",
			`listen_port = 0`,
			`listen_port = 70000`,
			`lb4d.toml:12: bgp.listen_port: 70000 is out of range; write 0 to 65535`},
		{"a community without a colon",
			`"65000:100"`,
			`"65000"`,
			`lb4d.toml:15: bgp.communities[0]: "65000" is not a community; write two numbers from 0 to 65535 as "65000:100", or a name: blackhole, no-advertise, no-export, no-export-subconfed or no-peer`},
		{"a community past 16 bits",
			`"65000:100"`,
			`"65000:65536"`,
			`lb4d.toml:15: bgp.communities[0]: "65000:65536" is not a community; write two numbers from 0 to 65535 as "65000:100", or a name: blackhole, no-advertise, no-export, no-export-subconfed or no-peer`},
		{"a community that is no number",
			`"65000:100"`,
			`"no-export", "internet"`,
			`lb4d.toml:15: bgp.communities[1]: "internet" is not a community; write two numbers from 0 to 65535 as "65000:100", or a name: blackhole, no-advertise, no-export, no-export-subconfed or no-peer`},
		{"graceful-shutdown",
			`"65000:100"`,
			`"graceful-shutdown"`,
			`lb4d.toml:15: bgp.communities[0]: "graceful-shutdown" is what the daemon itself adds while it drains; leave it out`},
		{"a large community of the daemon's own",
			`communities = ["65000:100"]`,
			`large_communities = ["65000:1818375270:1"]`,
			`lb4d.toml:15: bgp.large_communities[0]: "65000:1818375270:1" is what the daemon itself says to other LB4 hosts; leave it out`},
		{"graceful-shutdown as a number",
			`"65000:100"`,
			`"65535:0"`,
			`lb4d.toml:15: bgp.communities[0]: "65535:0" is what the daemon itself adds while it drains; leave it out`},
		{"a community twice",
			`"65000:100"`,
			`"no-export",
"65535:65281"`,
			`lb4d.toml:16: bgp.communities[1]: "65535:65281" is in the list twice; leave one of them out`},
		{"a community that is almost a name",
			`"65000:100"`,
			`"no_export"`,
			`lb4d.toml:15: bgp.communities[0]: "no_export" is not a community; did you mean "no-export"?`},
		{"a community that is a large one",
			`"65000:100"`,
			`"65000:1:100"`,
			`lb4d.toml:15: bgp.communities[0]: "65000:1:100" is a large community; write it into large_communities`},
		{"names of communities that are none",
			`communities = ["65000:100"]`,
			`community.a = "65000"
community.b = 7
community."c d" = "1:2"
community.no-export = "1:2"
community.graceful-shutdown = "1:2"
community.e = "1:2:3:4"`,
			`lb4d.toml:15: bgp.community.a: "65000" is not a community; write two numbers from 0 to 65535 as "65000:100", or three of a large one as "65000:1:100"
lb4d.toml:16: bgp.community.b: 7 is an integer; write a string, such as "65000:100"
lb4d.toml:17: bgp.community."c d": "c d" is not a name; write letters a to z and A to Z, digits, and . _ - only
lb4d.toml:18: bgp.community.no-export: no-export has a meaning of its own everywhere; write another name
lb4d.toml:19: bgp.community.graceful-shutdown: graceful-shutdown has a meaning of its own everywhere; write another name
lb4d.toml:20: bgp.community.e: "1:2:3:4" is not a community; write two numbers from 0 to 65535 as "65000:100", or three of a large one as "65000:1:100"`},
		{"a community as the names",
			`communities = ["65000:100"]`,
			`community = "65000:100"`,
			`lb4d.toml:15: bgp.community: "65000:100" is a string; write the table [bgp.community], with names of your own`},
		{"a name for a community of the other sort",
			`communities = ["65000:100"]`,
			`communities = ["site", "anycst"]
large_communities = ["anycast", "65000:1"]
community = { anycast = "65000:7", site = "65000:1:100" }`,
			`lb4d.toml:15: bgp.communities[0]: "site" is a large community; write it into large_communities
lb4d.toml:15: bgp.communities[1]: "anycst" is not a community; did you mean "anycast"?
lb4d.toml:16: bgp.large_communities[0]: "anycast" is no large community; write it into communities
lb4d.toml:16: bgp.large_communities[1]: "65000:1" is no large community; write it into communities`},
		{"large communities",
			`communities = ["65000:100"]`,
			`large_communities = ["4294967296:0:0", "1:2:3", "1:2:3"]`,
			`lb4d.toml:15: bgp.large_communities[0]: "4294967296:0:0" is not a community; write three numbers from 0 to 4294967295 as "65000:1:100", or a name: blackhole, no-advertise, no-export, no-export-subconfed or no-peer
lb4d.toml:15: bgp.large_communities[2]: "1:2:3" is in the list twice; leave one of them out`},
		{"numbers out of range",
			`communities = ["65000:100"]`,
			`med = -1
local_preference = 0
prepend = 17`,
			`lb4d.toml:15: bgp.med: -1 is out of range; write 0 to 4294967295
lb4d.toml:16: bgp.local_preference: 0 is out of range; write 1 to 4294967295
lb4d.toml:17: bgp.prepend: 17 is out of range; write 0 to 16`},
		{"next hops",
			`communities = ["65000:100"]`,
			`next_hops = ["127.0.0.1", "192.0.2.7", "192.0.2.8", "fe80::1"]`,
			`lb4d.toml:15: bgp.next_hops[0]: "127.0.0.1" is a loopback address; write one that the routers can reach
lb4d.toml:15: bgp.next_hops[2]: "192.0.2.8" is the second IPv4 address in the list; write one of each family at most
lb4d.toml:15: bgp.next_hops[3]: "fe80::1" is a link-local address; write one that other hosts can reach`},
		{"no next hops",
			`communities = ["65000:100"]`,
			`next_hops = []`,
			`lb4d.toml:15: bgp.next_hops: the list is empty; write an address of this host such as ["192.0.2.132"], or leave the key out`},
		{"a next hop that is a VIP",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
next_hops = ["198.51.100.2"]`,
			`lb4d.toml:63: service.ssh.vips[0]: 198.51.100.2 is bgp.peer.rr2.next_hops[0] in line 24, and a VIP belongs to no single host; write another address`},
		{"a peer's hold_time in parts of a second",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
hold_time = "3500ms"`,
			`lb4d.toml:24: bgp.peer.rr2.hold_time: "3500ms" is not in whole seconds, and BGP knows no others; write "3s" or "4s"`},
		{"a multihop that is too high",
			`drain_time = "5s"`,
			`drain_time = "5s"
multihop = 256`,
			`lb4d.toml:15: bgp.multihop: 256 is out of range; write 1 to 255`},
		{"a multihop that does nothing",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
multihop = 2`,
			`lb4d.toml:24: bgp.peer.rr2.multihop: this peer is in our own AS 65000 and may be any number of hops away; leave it out, or write ttl_security = true too`},
		{"a ttl_security in hops",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
ttl_security = 1`,
			`lb4d.toml:24: bgp.peer.rr2.ttl_security: 1 is an integer; write true or false, without quotes`},
		{"a passive peer with nowhere to call",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
passive = true`,
			`lb4d.toml:24: bgp.peer.rr2.passive: the peer has no port to call at; write listen_port = 179 under [bgp], or leave it out`},
		{"a passive peer with a port to be called at",
			`listen_port = 0
graceful_restart = "60s"
drain_time = "5s"
communities = ["65000:100"]

[bgp.peer.rr1]`,
			`listen_port = 179

[bgp.peer.rr1]
passive = true`,
			`lb4d.toml:17: bgp.peer.rr1.port: passive = true in line 15 keeps this port from being called; leave one of them out`},
		{"a source_address of the other family",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
source_address = "2001:db8::1"`,
			`lb4d.toml:24: bgp.peer.rr2.source_address: "2001:db8::1" cannot call 192.0.2.253, which is of the other address family; write one of the same`},
		{"a source_address that is the peer's",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
source_address = "192.0.2.253"`,
			`lb4d.toml:24: bgp.peer.rr2.source_address: "192.0.2.253" is the peer's; write one of this host`},
		{"a source_address that is a VIP",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
source_address = "198.51.100.1"`,
			`lb4d.toml:55: service.www.vips[0]: 198.51.100.1 is bgp.peer.rr2.source_address in line 24, and a VIP belongs to no single host; write another address`},
		{"no families",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
families = []`,
			`lb4d.toml:24: bgp.peer.rr2.families: the list is empty; write ["ipv4"], ["ipv6"], or leave the key out for both`},
		{"families that are none, or there twice",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
families = ["ipv4", "IPv6", "ipv4"]`,
			`lb4d.toml:24: bgp.peer.rr2.families[1]: "IPv6" is no address family; write "ipv4" or "ipv6"
lb4d.toml:24: bgp.peer.rr2.families[2]: "ipv4" is in the list twice; leave one of them out`},
		{"a local_preference for an external peer",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
as = 65010
local_preference = 50`,
			`lb4d.toml:25: bgp.peer.rr2.local_preference: this peer is in AS 65010, and only peers in our own, AS 65000, are told a local preference; leave it out, or write med or prepend`},
		{"a prepend for an internal peer",
			`address = "192.0.2.253"`,
			`address = "192.0.2.253"
prepend = 1`,
			`lb4d.toml:24: bgp.peer.rr2.prepend: this peer is in our own AS 65000 and would take the longer path for a loop; leave it out, or write local_preference`},
		{"no peer",
			`
[bgp.peer.rr1]
address = "192.0.2.254"
port = 179
as = 65000

[bgp.peer.rr2]
address = "192.0.2.253"
`,
			"",
			`lb4d.toml:8: bgp.peer: there is no peer, so nothing can be announced; write [bgp.peer.rr1] with address = "192.0.2.254"`},
		{"a peer without an address",
			`address = "192.0.2.253"
`,
			"",
			`lb4d.toml:22: bgp.peer.rr2.address: is missing; write the address of the peer, such as address = "192.0.2.254"`},
		{"a peer's address with a prefix length",
			`"192.0.2.253"`,
			`"192.0.2.253/32"`,
			`lb4d.toml:23: bgp.peer.rr2.address: "192.0.2.253/32" has a prefix length; write the address without it`},
		{"a peer's address that is a name",
			`"192.0.2.253"`,
			`"rr2.example.com"`,
			`lb4d.toml:23: bgp.peer.rr2.address: "rr2.example.com" is not an IP address; write one such as "192.0.2.1" or "2001:db8::1"`},
		{"a peer's address that is link-local",
			`"192.0.2.253"`,
			`"fe80::1"`,
			`lb4d.toml:23: bgp.peer.rr2.address: "fe80::1" is a link-local address; write one that other hosts can reach`},
		{"a peer's address with a zone",
			`"192.0.2.253"`,
			`"fe80::1%eth0"`,
			`lb4d.toml:23: bgp.peer.rr2.address: "fe80::1%eth0" has a zone; write one that other hosts can reach`},
		{"two peers with one address",
			`"192.0.2.253"`,
			`"192.0.2.254"`,
			`lb4d.toml:23: bgp.peer.rr2.address: 192.0.2.254 is the address of bgp.peer.rr1 in line 17 already; one session with a router is enough`},
		{"a peer that is this host",
			`"192.0.2.253"`,
			`"192.0.2.132"`,
			`lb4d.toml:23: bgp.peer.rr2.address: 192.0.2.132 is this host's own, by bgp.router_id in line 10; write the address of the router`},
		{"a peer's port of 0",
			`port = 179`,
			`port = 0`,
			`lb4d.toml:19: bgp.peer.rr1.port: 0 is out of range; write 1 to 65535`},
		{"a peer's as of 0",
			`port = 179
as = 65000`,
			`port = 179
as = 0`,
			`lb4d.toml:20: bgp.peer.rr1.as: 0 is reserved and numbers no autonomous system; write 1 to 4294967294`},
		{"a password_file that is missing",
			`port = 179`,
			`password_file = "/nonexistent/rr1.key"`,
			`lb4d.toml:19: bgp.peer.rr1.password_file: "/nonexistent/rr1.key" does not exist; write the password that the peer has into it`},
		{"a password_file that is a directory",
			`port = 179`,
			`password_file = "/etc"`,
			`lb4d.toml:19: bgp.peer.rr1.password_file: "/etc" is not a regular file; name one that holds the password`},
		{"a password_file that is a device",
			`port = 179`,
			`password_file = "/dev/zero"`,
			`lb4d.toml:19: bgp.peer.rr1.password_file: "/dev/zero" is not a regular file; name one that holds the password`},
		{"a relative password_file",
			`port = 179`,
			`password_file = "rr1.key"`,
			`lb4d.toml:19: bgp.peer.rr1.password_file: "rr1.key" is not an absolute path; write one that begins with /`},
	})
}
