package health

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The probes themselves need IPVS; they are tested with the probe path, in
// package tunnel.

// TestHintWords tells what a probe through the tunnel met, what one met directly,
// and the words.
func TestHintWords(t *testing.T) {
	late := context.DeadlineExceeded
	for _, tt := range []struct {
		tunnel, straight error
		want             string
	}{
		{late, nil, "; the member itself answers: has it the tunnel device, the VIP and a route back?"},
		{late, syscall.ECONNREFUSED, "; the member's host is alive: has it the tunnel device, the VIP and a route back?"},
		{late, late, "; the member itself does not answer either"},
		{late, syscall.EHOSTUNREACH, "; directly: no route to host"},
		{syscall.ECONNREFUSED, nil, "; the member itself answers: has it the tunnel device, and a server on the VIP?"},
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED, "; refused by the member itself, too"},
		{syscall.ECONNREFUSED, late, "; the member itself does not answer either"},
	} {
		if got := hintWords(tt.tunnel, tt.straight); got != tt.want {
			t.Errorf("%v through the tunnel, %v directly: %q, want %q", tt.tunnel, tt.straight, got, tt.want)
		}
	}
}

// TestThroughFaultsOfThisHost are told as such, and at once.
func TestThroughFaultsOfThisHost(t *testing.T) {
	at := Target{Addr: netip.MustParseAddr("127.0.0.1")}
	check := throughCheck()
	check.Timeout = slow

	check.Through.Fault = "looking for the route to member 192.0.2.139: network is unreachable"
	got := probe(t.Context(), way(check), at, check)
	if got.Verdict != Fail || got.Words != check.Through.Fault {
		t.Errorf("got %+v, want %q", got, check.Through.Fault)
	}
	check.Through.Fault = ""

	check.Through.Source = netip.Addr{}
	got = probe(t.Context(), way(check), at, check)
	if want := "this host has no address to probe 198.51.100.1 from"; got.Verdict != Fail || got.Words != want {
		t.Errorf("got %+v, want %q", got, want)
	}

	check.Through.Source = netip.MustParseAddr("203.0.113.99")
	if mayMark() {
		got = probe(t.Context(), way(check), at, check)
		if want := "probing from 203.0.113.99: cannot assign requested address"; got.Verdict != Fail || got.Words != want {
			t.Errorf("got %+v, want %q", got, want)
		}
	}

	// Without the capability, on a thread that ends with the test.
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	got = probe(t.Context(), way(check), at, check)
	if want := "marking the probe: not permitted; run as root, or with CAP_NET_ADMIN"; got.Verdict != Fail || !strings.HasPrefix(got.Words, want) {
		t.Errorf("got %+v, want %q...", got, want)
	}
}

// mayMark tells whether this process may set a mark.
func mayMark() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return !errors.Is(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1), os.ErrPermission)
}

// TestPaddedRequest has exactly the size that is asked for, and is one request.
func TestPaddedRequest(t *testing.T) {
	check := throughCheck()
	plain := request(Target{Addr: netip.MustParseAddr("192.0.2.139")}, check)
	if !strings.Contains(plain, "\r\nHost: 198.51.100.1\r\n") {
		t.Errorf("%q names another host than the VIP", plain)
	}
	for _, size := range []int{len(plain) + 13, 500, 1428, 1448} {
		text, ok := padded(plain, size)
		if !ok || len(text) != size || strings.Count(text, "\r\n\r\n") != 1 || !strings.HasSuffix(text, "x\r\n\r\n") && size > len(plain)+13 {
			t.Errorf("filled up to %d bytes: %d bytes, %v: %q", size, len(text), ok, text)
		}
	}
	if text, ok := padded(plain, len(plain)+12); ok {
		t.Errorf("there is no room for a field, and yet %q", text)
	}
}
