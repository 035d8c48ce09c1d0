package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var addrs = cmpopts.EquateComparable(netip.AddrPort{})

// answering is a socket that gives one reply to whatever is asked.
func answering(t *testing.T, reply string) *Client {
	return fake(t, Options{}, func(in *bufio.Reader, conn net.Conn) {
		_, _ = in.ReadString('\n')
		_, _ = conn.Write([]byte(reply))
	})
}

const stateHead = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"

func TestShowServersState(t *testing.T) {
	c := answering(t, stateHead+
		"3 b 1 s1 127.0.0.2 0 5 1 1 1 1 0 0 14 0 0 0 - 80 - 0 0 - - 0\n"+
		"3 b 2 s2 192.0.2.1 2 4 10 1 1 6 3 4 6 22 0 0 - 8080 - 0 0 - - 0\n"+
		"3 b 3 s3 2001:db8::1 2 12 0 1 1 6 3 4 6 18 0 0 - 8080 - 0 0 - - 0\n"+
		"3 b 4 s4 - 0 32 1 1 1 6 3 4 0 0 0 0 name.example 8080 - 0 0 - - 0\n\n")
	got, err := c.ShowServersState(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	want := []Server{
		{Backend: "b", Name: "s1", ID: 1, Addr: addr("127.0.0.2:80"), State: Maint, Weight: 1, InitialWeight: 1, HasCheck: true},
		{Backend: "b", Name: "s2", ID: 2, Addr: addr("192.0.2.1:8080"), State: Ready, Running: true, Weight: 10, InitialWeight: 1, HasCheck: true, Checked: true, HasAgent: true, Agent: true},
		{Backend: "b", Name: "s3", ID: 3, Addr: addr("[2001:db8::1]:8080"), State: Drain, Running: true, InitialWeight: 1, HasCheck: true, Checked: true, HasAgent: true},
		{Backend: "b", Name: "s4", ID: 4, State: Maint, Weight: 1, InitialWeight: 1, Checked: true},
	}
	if diff := cmp.Diff(want, got, addrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is no listing, or only the start of one, is an error, never a back end without servers.
func TestListingsThatAreNone(t *testing.T) {
	for _, reply := range []string{
		stateHead + "3 b 1 s1 127.0.0.2 0 5 1 1 1 1 0 0 14 0 0 0 - 80 - 0 0 - - 0\n",
		"# pxname,svname,scur,qcur,status,weight,check_status\nb,s1,,,,,\n", "Pid: 5\n", "# name\nb\n", "[6]: New version created: 1\n",
		"", "\n", "Can't find backend.\n\n", "2\n# another format\n", "[3]: Permission denied\n\n",
		stateHead + "3 b 1 s1\n", stateHead + "3 b one s1 127.0.0.2 0 5 1 1 1 1 0 0 14 0 0 0 - 80\n",
	} {
		c := answering(t, reply)
		if got, err := c.ShowServersState(t.Context(), "b"); err == nil {
			t.Errorf("ShowServersState on %q: %v", reply, got)
		}
		if got, err := c.ShowStat(t.Context(), "b"); err == nil {
			t.Errorf("ShowStat on %q: %v", reply, got)
		}
		if got, err := c.ShowInfo(t.Context()); err == nil {
			t.Errorf("ShowInfo on %q: %v", reply, got)
		}
		if got, err := c.ShowBackends(t.Context()); err == nil {
			t.Errorf("ShowBackends on %q: %v", reply, got)
		}
		if got, err := c.PrepareMap(t.Context(), "/m"); err == nil {
			t.Errorf("PrepareMap on %q: %v", reply, got)
		}
	}
}

// A check's text comes from a server; quotes and line ends in it stay in their
// field.
func TestShowStat(t *testing.T) {
	c := answering(t, "# pxname,svname,qcur,scur,stot,status,weight,lastchg,check_status,last_chk,new,\n"+
		"b,s1,1,2,3,UP,4,5,* L7OK,\"he said \"\"no\x1b\"\",\nthen\",x,\n"+
		"b,BACKEND,,7,8,UP,9,,,,x,\n\n")
	got, err := c.ShowStat(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	want := []Stat{
		{Backend: "b", Server: "s1", Queued: 1, Sessions: 2, SessionsTotal: 3, Status: "UP", Weight: 4, SinceChange: 5, CheckStatus: "L7OK", LastCheck: `he said "no",then`},
		{Backend: "b", Sessions: 7, SessionsTotal: 8, Status: "UP", Weight: 9},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The callback's error comes back, and the rest of the reply is still read.
func TestShowMapStopsTelling(t *testing.T) {
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "0x7f97740465b0 key%d value with spaces\n", i)
	}
	c := answering(t, b.String()+"\n")
	n, enough := 0, errors.New("enough")
	err := c.ShowMap(t.Context(), "/m", func(key, value string) error {
		if n++; n == 3 {
			return enough
		}
		if value != "value with spaces" {
			t.Errorf("value %q", value)
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("got %v after %d", err, n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("3 b 2 s2 192.0.2.1 2 4 10 1 1 6 3 4 6 22 0 0 - 8080 - 0 0 - - 0")
	f.Add("# pxname,svname,scur,qcur,status,weight,check_status\nb,s,,,,,\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parseServer(s)
		_, _ = parseStat(s)
		_, _ = cutSeverity(s)
	})
}
