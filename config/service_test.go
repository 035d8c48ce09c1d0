package config

import "testing"

// TestFaultsOfServices tells what can be wrong with services.
func TestFaultsOfServices(t *testing.T) {
	testFaults(t, []faultCase{
		{"no service",
			`[service.www]
vips = ["198.51.100.1"]
ports = ["80/tcp", "443/tcp", "443/udp"]
pool = "lb7"
quorum = 1
scheduler = "mh"
flags = ["mh-port", "mh-fallback"]

[service.ssh]
vips = ["198.51.100.2"]
ports = ["22/tcp"]
pool = "ssh"

`,
			"",
			`lb4d.toml:1: service: there is no service; write [service.www] with vips = ["198.51.100.1"], ports = ["80/tcp"] and pool = "lb7"`},
		{"no VIPs",
			`vips = ["198.51.100.2"]
`,
			"",
			`lb4d.toml:61: service.ssh.vips: is missing; write the addresses that users reach the service at, such as vips = ["198.51.100.1"]`},
		{"an empty list of VIPs",
			`vips = ["198.51.100.2"]`,
			`vips = []`,
			`lb4d.toml:62: service.ssh.vips: the list is empty; write the addresses that users reach the service at, such as ["198.51.100.1"]`},
		{"a VIP that is no address",
			`"198.51.100.2"`,
			`"198.51.100"`,
			`lb4d.toml:62: service.ssh.vips[0]: "198.51.100" is not an IP address; write one such as "192.0.2.1" or "2001:db8::1"`},
		{"a VIP with a prefix length",
			`"198.51.100.2"`,
			`"198.51.100.2/32"`,
			`lb4d.toml:62: service.ssh.vips[0]: "198.51.100.2/32" has a prefix length; write the address without it`},
		{"a VIP that is unspecified",
			`"198.51.100.2"`,
			`"::"`,
			`lb4d.toml:62: service.ssh.vips[0]: "::" stands for no address; write one that other hosts can reach`},
		{"a VIP that is a loopback address",
			`"198.51.100.2"`,
			`"127.0.0.1"`,
			`lb4d.toml:62: service.ssh.vips[0]: "127.0.0.1" is a loopback address; write one that other hosts can reach`},
		{"a VIP that is multicast",
			`"198.51.100.2"`,
			`"ff02::1"`,
			`lb4d.toml:62: service.ssh.vips[0]: "ff02::1" is a multicast address; write one that other hosts can reach`},
		{"a VIP that is link-local",
			`"198.51.100.2"`,
			`"169.254.0.1"`,
			`lb4d.toml:62: service.ssh.vips[0]: "169.254.0.1" is a link-local address; write one that other hosts can reach`},
		{"a VIP with a zone",
			`"198.51.100.2"`,
			`"2001:db8::1%eth0"`,
			`lb4d.toml:62: service.ssh.vips[0]: "2001:db8::1%eth0" has a zone; write one that other hosts can reach`},
		{"a VIP in mapped form",
			`"198.51.100.2"`,
			`"::ffff:198.51.100.2"`,
			`lb4d.toml:62: service.ssh.vips[0]: "::ffff:198.51.100.2" is an IPv4 address written as an IPv6 one; write "198.51.100.2"`},
		{"a VIP twice in one service",
			`["198.51.100.2"]`,
			`["198.51.100.2",
  "198.51.100.2"]`,
			`lb4d.toml:63: service.ssh.vips[1]: "198.51.100.2" is in the list twice; leave one of them out`},
		{"a VIP in two services on one port",
			`vips = ["198.51.100.2"]
ports = ["22/tcp"]
pool = "ssh"`,
			`vips = ["198.51.100.1"]
ports = ["443/tcp"]
pool = "lb7"`,
			`lb4d.toml:62: service.ssh.vips[0]: 198.51.100.1 with port 443/tcp is in service www in line 54 already; leave it out of one of them`},
		{"a VIP in two pools",
			`"198.51.100.2"`,
			`"198.51.100.1"`,
			`lb4d.toml:62: service.ssh.vips[0]: 198.51.100.1 leads to pool lb7 in service www in line 54 already; use that pool here too, or another VIP`},
		{"a VIP in two pools and on one port",
			`"198.51.100.2"]
ports = ["22/tcp"`,
			`"198.51.100.1"]
ports = ["80/tcp"`,
			`lb4d.toml:62: service.ssh.vips[0]: 198.51.100.1 with port 80/tcp is in service www in line 54 already; leave it out of one of them`},
		{"a VIP that is a member",
			`"198.51.100.2"`,
			`"192.0.2.140"`,
			`lb4d.toml:62: service.ssh.vips[0]: 192.0.2.140 is pool.lb7.member.lb7-2 in line 30, and a VIP belongs to no single host; write another address`},
		{"a VIP that is a peer",
			`"198.51.100.2"`,
			`"192.0.2.254"`,
			`lb4d.toml:62: service.ssh.vips[0]: 192.0.2.254 is bgp.peer.rr1.address in line 18, and a VIP belongs to no single host; write another address`},
		{"a VIP that is this host",
			`"198.51.100.2"`,
			`"192.0.2.132"`,
			`lb4d.toml:62: service.ssh.vips[0]: 192.0.2.132 is bgp.router_id in line 10, and a VIP belongs to no single host; write another address`},
		{"an IPv6 VIP, members without IPv6 and a direct check",
			`via = "tunnel"

[pool.ssh]
members = ["192.0.2.150"]

[pool.ssh.check]
tcp = true
port = 22

[service.www]
vips = ["198.51.100.1"]`,
			`via = "direct"

[pool.ssh]
members = ["192.0.2.150"]

[pool.ssh.check]
tcp = true
port = 22

[service.www]
vips = ["198.51.100.1", "2001:db8::1"]`,
			`lb4d.toml:28: pool.lb7.members[0]: has no IPv6 address, and service.www.vips[1] in line 54 is an IPv6 VIP; write the member as [pool.lb7.member.NAME] with address and address6, or via = "tunnel" in the check
lb4d.toml:30: pool.lb7.member.lb7-2: has no IPv6 address, and service.www.vips[1] in line 54 is an IPv6 VIP; write address6 too, or via = "tunnel" in the check`},
		{"an IPv4 VIP, members without IPv4 and a direct check",
			`members = ["192.0.2.150"]

[pool.ssh.check]
`,
			`members = ["2001:db8::150"]

[pool.ssh.check]
via = "direct"
`,
			`lb4d.toml:47: pool.ssh.members[0]: has no IPv4 address, and service.ssh.vips[0] in line 63 is an IPv4 VIP; write the member as [pool.ssh.member.NAME] with address and address6, or via = "tunnel" in the check`},
		{"no ports",
			`ports = ["22/tcp"]
`,
			"",
			`lb4d.toml:61: service.ssh.ports: is missing; write the ports with their protocols, such as ports = ["80/tcp"]`},
		{"an empty list of ports",
			`ports = ["22/tcp"]`,
			`ports = []`,
			`lb4d.toml:63: service.ssh.ports: the list is empty; write the ports with their protocols, such as ["80/tcp"]`},
		{"a port without a protocol",
			`"22/tcp"`,
			`"22"`,
			`lb4d.toml:63: service.ssh.ports[0]: "22" names no protocol; write "22/tcp" or "22/udp"`},
		{"a port that is a number",
			`["22/tcp"]`,
			`[22]`,
			`lb4d.toml:63: service.ssh.ports[0]: 22 is an integer; write a string, such as "80/tcp"`},
		{"port 0",
			`"22/tcp"`,
			`"0/tcp"`,
			`lb4d.toml:63: service.ssh.ports[0]: "0/tcp" is not a port; write a number from 1 to 65535 and its protocol, such as "80/tcp"`},
		{"port 70000",
			`"22/tcp"`,
			`"70000/tcp"`,
			`lb4d.toml:63: service.ssh.ports[0]: "70000/tcp" is not a port; write a number from 1 to 65535 and its protocol, such as "80/tcp"`},
		{"a port with a sign",
			`"22/tcp"`,
			`"+22/tcp"`,
			`lb4d.toml:63: service.ssh.ports[0]: "+22/tcp" is not a port; write a number from 1 to 65535 and its protocol, such as "80/tcp"`},
		{"a port by name",
			`"22/tcp"`,
			`"ssh/tcp"`,
			`lb4d.toml:63: service.ssh.ports[0]: "ssh/tcp" is not a port; write a number from 1 to 65535 and its protocol, such as "80/tcp"`},
		{"a protocol that IPVS does not balance",
			`"22/tcp"`,
			`"22/icmp"`,
			`lb4d.toml:63: service.ssh.ports[0]: "22/icmp" has a protocol that is not known; write "22/tcp" or "22/udp"`},
		{"a protocol in upper case",
			`"22/tcp"`,
			`"22/TCP"`,
			`lb4d.toml:63: service.ssh.ports[0]: "22/TCP" has a protocol that is not known; write "22/tcp" or "22/udp"`},
		{"a port twice",
			`"22/tcp"`,
			`"22/tcp", "22/tcp"`,
			`lb4d.toml:63: service.ssh.ports[1]: "22/tcp" is in the list twice; leave one of them out`},
		{"no pool",
			`pool = "ssh"
`,
			"",
			`lb4d.toml:61: service.ssh.pool: is missing; write the name of a pool, such as pool = "lb7"`},
		{"a pool that does not exist",
			`pool = "ssh"`,
			`pool = "web"`,
			`lb4d.toml:64: service.ssh.pool: there is no pool "web"; write lb7 or ssh`},
		{"a pool that does not exist, by a letter",
			`pool = "ssh"`,
			`pool = "shh"`,
			`lb4d.toml:64: service.ssh.pool: there is no pool "shh"; did you mean "ssh"? There are lb7 and ssh`},
		{"a quorum of 0",
			`quorum = 1`,
			`quorum = 0`,
			`lb4d.toml:57: service.www.quorum: 0 is less than 1; write how many members must be up, such as 1 or "50%"`},
		{"a quorum of more members than there are",
			`quorum = 1`,
			`quorum = 3`,
			`lb4d.toml:57: service.www.quorum: 3 can never be up, because pool lb7 has 2; write at most 2`},
		{"a quorum of 0 %",
			`quorum = 1`,
			`quorum = "0%"`,
			`lb4d.toml:57: service.www.quorum: "0%" is not a quorum; write a number of members, such as 1, or a percentage from "1%" to "100%"`},
		{"a quorum of 101 %",
			`quorum = 1`,
			`quorum = "101%"`,
			`lb4d.toml:57: service.www.quorum: "101%" is not a quorum; write a number of members, such as 1, or a percentage from "1%" to "100%"`},
		{"a quorum in quotes",
			`quorum = 1`,
			`quorum = "2"`,
			`lb4d.toml:57: service.www.quorum: "2" is not a quorum; write a number of members, such as 1, or a percentage from "1%" to "100%"`},
		{"a quorum_restore of more members than there are",
			`quorum = 1`,
			`quorum_restore = 3`,
			`lb4d.toml:57: service.www.quorum_restore: 3 can never be up, because pool lb7 has 2; write at most 2`},
		{"a quorum_restore that is none",
			`quorum = 1`,
			`quorum_restore = "all"`,
			`lb4d.toml:57: service.www.quorum_restore: "all" is not a quorum; write a number of members, such as 1, or a percentage from "1%" to "100%"`},
		{"a quorum_restore of the wrong type",
			`quorum = 1`,
			`quorum_restore = true`,
			`lb4d.toml:57: service.www.quorum_restore: true is a boolean; write an integer or a percentage, such as 2 or "75%"`},
		{"a quorum_restore below the quorum",
			`quorum = 1`,
			`quorum_restore = 1
quorum = 2`,
			`lb4d.toml:57: service.www.quorum_restore: 1 is less than the quorum of 2 in line 58; write at least 2, or leave the key out`},
		{"a quorum_restore below the quorum, in percent",
			`quorum = 1`,
			`quorum = "75%"
quorum_restore = "50%"`,
			`lb4d.toml:58: service.www.quorum_restore: "50%" is less than the quorum of "75%" in line 57; write at least "75%", or leave the key out`},
		{"a quorum_restore in percent below a quorum in members",
			`quorum = 1`,
			`quorum = 2
quorum_restore = "50%"`,
			`lb4d.toml:58: service.www.quorum_restore: "50%" of the 2 members of pool lb7 means 1, and the quorum of 2 in line 57 means 2; write at least 2, or leave the key out`},
		{"a quorum and a quorum_restore that are none",
			`quorum = 1`,
			`quorum = 0
quorum_restore = -1`,
			`lb4d.toml:57: service.www.quorum: 0 is less than 1; write how many members must be up, such as 1 or "50%"
lb4d.toml:58: service.www.quorum_restore: -1 is less than 1; write how many members must be up, such as 1 or "50%"`},
		{"a scheduler that nobody knows",
			`scheduler = "mh"`,
			`scheduler = "maglev"`,
			`lb4d.toml:58: service.www.scheduler: "maglev" is not a scheduler of IPVS; write one of mh, rr, wrr, lc, wlc, sh, dh, sed, nq, lblc, lblcr, fo, ovf`},
		{"a flag that nobody knows",
			`"mh-fallback"]`,
			`"fallback"]`,
			`lb4d.toml:59: service.www.flags[1]: "fallback" is not a flag of the scheduler mh; write mh-port or mh-fallback`},
		{"a flag of another scheduler",
			`"mh-fallback"]`,
			`"sh-port"]`,
			`lb4d.toml:59: service.www.flags[1]: "sh-port" is not a flag of the scheduler mh; write mh-port or mh-fallback`},
		{"a flag of mh with sh",
			`scheduler = "mh"`,
			`scheduler = "sh"`,
			`lb4d.toml:59: service.www.flags[0]: "mh-port" is not a flag of the scheduler sh; write sh-port or sh-fallback
lb4d.toml:59: service.www.flags[1]: "mh-fallback" is not a flag of the scheduler sh; write sh-port or sh-fallback`},
		{"a flag with a scheduler that has none",
			`scheduler = "mh"
flags = ["mh-port", "mh-fallback"]`,
			`scheduler = "wrr"
flags = ["mh-port"]`,
			`lb4d.toml:59: service.www.flags[0]: "mh-port": the scheduler wrr has no flags; leave it out`},
		{"a flag twice",
			`"mh-fallback"]`,
			`"mh-port"]`,
			`lb4d.toml:59: service.www.flags[1]: "mh-port" is in the list twice; leave one of them out`},
		{"two services on a VIP that say different things of its route",
			`vips = ["198.51.100.2"]
ports = ["22/tcp"]
pool = "ssh"`,
			`vips = ["198.51.100.1"]
ports = ["22/tcp"]
pool = "lb7"
bgp.med = 100`,
			`lb4d.toml:62: service.ssh.vips[0]: 198.51.100.1 is in service www in line 54 already, with other BGP attributes; write the same here, or use another VIP`},
		{"attributes of a service",
			`pool = "ssh"`,
			`pool = "ssh"
[service.ssh.bgp]
communities = ["65535:0"]
med = "high"
weight = 1`,
			`lb4d.toml:66: service.ssh.bgp.communities[0]: "65535:0" is what the daemon itself adds while it drains; leave it out
lb4d.toml:67: service.ssh.bgp.med: "high" is a string; write an integer, such as 100
lb4d.toml:68: service.ssh.bgp.weight: there is no such key; those that may stand here are communities, large_communities, med, local_preference, prepend and next_hops`},
	})
}
