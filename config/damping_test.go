package config

import "testing"

// TestFaultsOfDamping tells what can be wrong with [damping], and with what
// routes say while they drain.
func TestFaultsOfDamping(t *testing.T) {
	const bgp = `drain_time = "5s"
`
	testFaults(t, []faultCase{
		{"max_hold_down below hold_down",
			"[control]\n", "[damping]\nhold_down = \"1m\"\nmax_hold_down = \"30s\"\n[control]\n",
			`lb4d.toml:6: damping.max_hold_down: max_hold_down 30s is less than hold_down 1m; write at least as much`},
		{"hold_down above the default of max_hold_down",
			"[control]\n", "[damping]\nhold_down = \"6m\"\n[control]\n",
			`lb4d.toml:5: damping.hold_down: max_hold_down 5m is less than hold_down 6m; write at least as much`},
		{"a hold_down of a day",
			"[control]\n", "[damping]\nhold_down = \"24h\"\nmax_hold_down = \"1h\"\n[control]\n",
			`lb4d.toml:5: damping.hold_down: "24h" is too long; write "0s" to "1h"`},
		{"a forget_after of nothing",
			"[control]\n", "[damping]\nforget_after = \"0s\"\n[control]\n",
			`lb4d.toml:5: damping.forget_after: "0s" is too short; write "1s" to "24h"`},
		{"a negative tolerate",
			"[control]\n", "[damping]\ntolerate = -1\n[control]\n",
			`lb4d.toml:5: damping.tolerate: -1 is out of range; write 0 to 100`},
		{"a drain_med that is better than the med",
			bgp, bgp + "drain_med = 99\nmed = 100\n",
			`lb4d.toml:15: bgp.drain_med: 99 is better than the med of [bgp], which is 100, and would draw traffic; write that or more`},
		{"a drain_prepend that is better than the prepend",
			bgp, bgp + "drain_prepend = 1\nprepend = 2\n",
			`lb4d.toml:15: bgp.drain_prepend: 1 is better than the prepend of [bgp], which is 2, and would draw traffic; write that or more`},
		{"a drain_med that is better than a peer's",
			bgp, bgp + "drain_med = 99\npeer.rr3 = { address = \"192.0.2.252\", med = 100 }\n",
			`lb4d.toml:15: bgp.drain_med: 99 is better than the med of [bgp.peer.rr3], which is 100, and would draw traffic; write that or more`},
		{"a drain_prepend that is too high",
			bgp, bgp + "drain_prepend = 17\n",
			`lb4d.toml:15: bgp.drain_prepend: 17 is out of range; write 0 to 16`},
	})
}
