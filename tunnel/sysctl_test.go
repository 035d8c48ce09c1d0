package tunnel

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A directory stands for /proc/sys. What only the kernel does (refuse, be
// read-only) is in sysctl_linux_test.go.
func TestApplySysctls(t *testing.T) {
	wanted := []Sysctl{
		{Key: "net.ipv4.vs.sloppy_tcp", Value: "1"},
		{Key: "net.ipv4.vs.schedule_icmp", Value: "1"},
		{Key: "net.ipv4.vs.conn_reuse_mode", Value: "2", Optional: true},
		{Key: "net.ipv4.conf.eth0/100.rp_filter", Value: "2"},
		{Key: "net.ipv4.vs.sync_threshold", Value: "3 50"},
	}
	tests := []struct {
		name    string
		files   map[string]string
		want    []string
		wantErr []string
		after   map[string]string
	}{
		{
			name: "all as wanted, in the kernel's spacing",
			files: map[string]string{
				"net/ipv4/vs/sloppy_tcp": "1\n", "net/ipv4/vs/schedule_icmp": "1\n", "net/ipv4/vs/conn_reuse_mode": "2\n",
				"net/ipv4/conf/eth0.100/rp_filter": "2\n", "net/ipv4/vs/sync_threshold": "3\t50\n",
			},
		},
		{
			name: "some differ",
			files: map[string]string{
				"net/ipv4/vs/sloppy_tcp": "0\n", "net/ipv4/vs/schedule_icmp": "1\n", "net/ipv4/vs/conn_reuse_mode": "1\n",
				"net/ipv4/conf/eth0.100/rp_filter": "1\n", "net/ipv4/vs/sync_threshold": "3\t10\n",
			},
			want: []string{
				"net.ipv4.vs.sloppy_tcp = 1 (was 0)", "net.ipv4.vs.conn_reuse_mode = 2 (was 1)",
				"net.ipv4.conf.eth0/100.rp_filter = 2 (was 1)", "net.ipv4.vs.sync_threshold = 3 50 (was 3 10)",
			},
			after: map[string]string{
				"net/ipv4/vs/sloppy_tcp": "1\n", "net/ipv4/vs/conn_reuse_mode": "2\n",
				"net/ipv4/conf/eth0.100/rp_filter": "2\n", "net/ipv4/vs/sync_threshold": "3 50\n",
			},
		},
		{
			name: "what is missing or unreadable does not keep the rest from being set",
			files: map[string]string{
				"net/ipv4/vs/schedule_icmp": "0\n", "net/ipv4/conf/eth0.100/rp_filter": "2\n",
				"net/ipv4/vs/sync_threshold/is_a_directory": "",
			},
			want: []string{"net.ipv4.vs.schedule_icmp = 1 (was 0)"},
			wantErr: []string{
				"reading net.ipv4.vs.sync_threshold: ",
				"setting net.ipv4.vs.sloppy_tcp to 1: this kernel does not have it; is its module loaded?",
			},
			after: map[string]string{"net/ipv4/vs/schedule_icmp": "1\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, content := range tt.files {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			changes, err := applySysctls(root, wanted)
			if diff := cmp.Diff(tt.want, changed(changes)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			checkLines(t, err, tt.wantErr)
			for name, want := range tt.after {
				if got, err := os.ReadFile(filepath.Join(root, name)); string(got) != want {
					t.Errorf("%s is %q (%v), want %q", name, got, err, want)
				}
			}
			again, _ := applySysctls(root, wanted)
			if len(again) != 0 {
				t.Errorf("set a second time: %q", changed(again))
			}
		})
	}
}

func changed(changes []SysctlChange) []string {
	var s []string
	for _, c := range changes {
		s = append(s, c.String())
	}
	return s
}

// checkLines checks that an error has as many lines as are wanted, each with
// the wanted beginning.
func checkLines(t *testing.T, err error, want []string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if len(got) != len(want) {
		t.Errorf("error has %d lines, want %d: %v", len(got), len(want), err)
		return
	}
	for i := range got {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("line %d of the error is %q, want %q...", i+1, got[i], want[i])
		}
	}
}

func TestLB4Sysctls(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range LB4Sysctls() {
		if seen[s.Key] || s.Why == "" || s.Value == "" || !fs.ValidPath(path("proc", s.Key)) {
			t.Errorf("not a good entry: %+v", s)
		}
		seen[s.Key] = true
	}
}
