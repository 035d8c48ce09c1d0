package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkPass is what the loop asks for each second although nothing has
// changed: the routes listed, set, and the peers set.
func BenchmarkPass(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n, "-routes"), func(b *testing.B) {
			s, err := Start(context.Background(), Options{AS: 65000, RouterID: netip.MustParseAddr("192.0.2.132")},
				(&logbook{}).logger(0), func() {})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = s.Close(context.Background()) })
			peers := []Peer{
				{Name: "rr1", Address: netip.MustParseAddr("127.0.0.2"), Port: 1, AS: 65000},
				{Name: "rr2", Address: netip.MustParseAddr("::1"), Port: 1, AS: 65000},
			}
			routes := many(n)
			if err := s.Set(routes); err != nil {
				b.Fatal(err)
			}
			if err := s.SetPeers(peers); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Routes(); err != nil {
					b.Fatal(err)
				}
				if err := s.Set(routes); err != nil {
					b.Fatal(err)
				}
				if err := s.SetPeers(peers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
