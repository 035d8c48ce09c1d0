package store

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// daemon is a store's server, which the test starts, kills and starts again.
type daemon struct {
	args  []string
	ready func() bool
	cmd   *exec.Cmd
	ended chan struct{}
}

// need finds a program, skips the test where there is none, and fails it where
// LAB_REQUIRED=1 says that there has to be one.
func need(t testing.TB, name, how string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if cache, err := os.UserCacheDir(); err == nil {
		path := filepath.Join(cache, "lb4d", "node_modules", ".bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("LAB_REQUIRED") == "1" {
		t.Fatalf("no %s here; %s", name, how)
	}
	t.Skipf("no %s here; %s", name, how)
	return ""
}

func (d *daemon) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(d.args[0], d.args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal comes when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	d.cmd, d.ended = cmd, ended
	for deadline := time.Now().Add(30 * time.Second); !d.ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer", d.args[0])
		}
	}
}

func (d *daemon) kill() {
	if d.cmd != nil {
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.ended
		d.cmd = nil
	}
}

// freePorts are different from one another, and nothing listened on them a
// moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func answers(url string) bool {
	c := http.Client{Timeout: time.Second}
	resp, err := c.Get(url)
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}

// startEtcd runs Debian's etcd and returns its URL.
func startEtcd(t testing.TB) (*daemon, string) {
	t.Helper()
	program := need(t, "etcd", "apt-get install etcd-server")
	ports := freePorts(t, 2)
	url, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	d := &daemon{
		args: []string{
			program, "--data-dir", t.TempDir(), "--log-level", "error",
			"--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		},
		ready: func() bool { return answers(url + "/health") },
	}
	d.start(t)
	t.Cleanup(d.kill)
	return d, url
}

func dialEtcd(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	c, err := DialEtcd(EtcdOptions{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dynalite is a DynamoDB that its maintainers test against the real one.
type dynalite struct {
	*daemon
	client *dynamodb.Client
}

const tableName = "haproxy-service-discovery-orchestrator"

func startDynalite(t testing.TB) *dynalite {
	t.Helper()
	program := need(t, "dynalite", "npm install --prefix ~/.cache/lb4d dynalite@4.0.0")
	port := freePorts(t, 1)[0]
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	d := &dynalite{daemon: &daemon{
		args:  []string{program, "--port", fmt.Sprint(port), "--path", t.TempDir(), "--createTableMs", "0"},
		ready: func() bool { return answers(url) },
	}}
	d.client = dynamodb.New(dynamodb.Options{
		Region: "eu-west-3", BaseEndpoint: &url,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	})
	d.start(t)
	t.Cleanup(d.kill)
	_, err := d.client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName:             aws.String(tableName),
		AttributeDefinitions:  []types.AttributeDefinition{{AttributeName: aws.String("BackendServerID"), AttributeType: types.ScalarAttributeTypeN}},
		KeySchema:             []types.KeySchemaElement{{AttributeName: aws.String("BackendServerID"), KeyType: types.KeyTypeHash}},
		ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(20), WriteCapacityUnits: aws.Int64(20)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := d.client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(tableName)})
		if err == nil && out.Table.TableStatus == types.TableStatusActive {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table does not come: %v", err)
		}
	}
}

// outage is a store of one kind, opened as often as a test needs it, and the
// way to take it away and bring it back.
type outage struct {
	open       func(t testing.TB) Store
	away, back func(t testing.TB)
}

// kinds are the stores that every test of the contract runs with.
var kinds = map[string]func(t testing.TB) outage{
	"file": func(t testing.TB) outage {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		move := func(from, to string) func(testing.TB) {
			return func(t testing.TB) {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		return outage{
			open: func(testing.TB) Store { return NewFile(filepath.Join(dir, "servers.json")) },
			away: move(dir, dir+".away"), back: move(dir+".away", dir),
		}
	},
	"etcd": func(t testing.TB) outage {
		d, url := startEtcd(t)
		return outage{
			open: func(t testing.TB) Store { return NewEtcd(dialEtcd(t, url), "/lb7d", "servers") },
			away: func(testing.TB) { d.kill() }, back: d.start,
		}
	},
	"dynamodb": func(t testing.TB) outage {
		d := startDynalite(t)
		return outage{
			open: func(testing.TB) Store {
				return NewDynamoDB(d.client, DynamoDBOptions{Table: tableName, Port: 80, Weight: 10, Poll: 50 * time.Millisecond})
			},
			away: func(testing.TB) { d.kill() }, back: d.start,
		}
	},
}

// everyKind runs the test with each store.
func everyKind(t *testing.T, test func(t *testing.T, o outage)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, kind(t))
		})
	}
}
