package control

import "time"

// Tunnel is what takes packets for VIPs out of the tunnels of the LB4 hosts.
type Tunnel struct {
	VIPs  []string `json:"vips"`
	Modes []string `json:"modes"`
	// Devices are the tunnel devices that are up.
	Devices []string `json:"devices"`
	// MTU of the underlay, in bytes.
	MTU int `json:"mtu"`
	// MSS4 and MSS6 are the largest TCP segments that users are asked to send;
	// 0: none are asked for.
	MSS4 int `json:"mss4,omitempty"`
	MSS6 int `json:"mss6,omitempty"`
	// Unlimited are the routes whose advmss cannot be kept, and why.
	Unlimited []string `json:"unlimited,omitempty"`
	// Error is what is not as it should be.
	Error string `json:"error,omitempty"`
	// Applied is when all was last as it should be.
	Applied time.Time `json:"applied,omitzero"`
	// Repaired counts what another hand had changed.
	Repaired uint64 `json:"repaired"`
}

var (
	tunnelError     = lb7Gauge("tunnel_error", "1 while something of the tunnels or the VIPs is not as it should be.")
	tunnelVIPs      = lb7Gauge("tunnel_vips", "VIPs that packets are taken out of tunnels for.")
	tunnelDevices   = lb7Gauge("tunnel_devices", "Tunnel devices that are up.")
	tunnelMTU       = lb7Gauge("tunnel_underlay_mtu_bytes", "The largest packet that the network between the LB4 hosts and this one carries, outer header included.")
	tunnelMSS       = lb7Gauge("tunnel_mss_bytes", "The largest TCP segment that users are asked to send, so that it fits the tunnel.", "family")
	tunnelUnlimited = lb7Gauge("tunnel_unlimited_routes", "Routes that cannot be made to ask users for smaller segments.")
	tunnelApplied   = lb7Gauge("tunnel_last_success_timestamp_seconds", "When all of the tunnels and the VIPs was last as it should be.")
	tunnelRepaired  = lb7Counter("tunnel_drift_repaired_total", "Changes by another hand to the tunnels and what belongs to them that were put right.")
)

func (e emitter) tunnel(t *Tunnel) {
	if t == nil {
		return
	}
	e.put(tunnelError, truth(t.Error != ""))
	e.put(tunnelVIPs, float64(len(t.VIPs)))
	e.put(tunnelDevices, float64(len(t.Devices)))
	e.put(tunnelMTU, float64(t.MTU))
	for _, m := range []struct {
		family string
		mss    int
	}{{"ipv4", t.MSS4}, {"ipv6", t.MSS6}} {
		if m.mss > 0 {
			e.put(tunnelMSS, float64(m.mss), m.family)
		}
	}
	e.put(tunnelUnlimited, float64(len(t.Unlimited)))
	e.time(tunnelApplied, t.Applied)
	e.put(tunnelRepaired, float64(t.Repaired))
}
