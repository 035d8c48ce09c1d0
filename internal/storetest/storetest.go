// Package storetest runs the real stores that slot records are kept in, for a
// test that takes them away and brings them back: etcd, and dynalite, a DynamoDB
// that its maintainers test against the real one.
package storetest

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
)

// Server is a store's server. It keeps its data while it is away.
type Server struct {
	// URL is where it answers, the same after each start.
	URL string

	args  []string
	ready string // what it answers when it is at work
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

// Start runs the server and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(s.args[0], s.args[1:]...)
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
	s.cmd, s.ended = cmd, ended
	for deadline := time.Now().Add(30 * time.Second); !answers(s.ready); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer", s.args[0])
		}
	}
}

// Kill takes the server away, as a power cut does.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
		s.cmd = nil
	}
}

// Forget has the server, which is away, lose its data.
func (s *Server) Forget(t testing.TB) {
	t.Helper()
	for i, a := range s.args {
		if a == "--data-dir" || a == "--path" {
			s.args[i+1] = t.TempDir()
		}
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

// Etcd runs Debian's etcd until the test ends.
func Etcd(t testing.TB) *Server {
	t.Helper()
	program := need(t, "etcd", "apt-get install etcd-server")
	ports := freePorts(t, 2)
	url, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	s := &Server{URL: url, ready: url + "/health", args: []string{
		program, "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}}
	s.Start(t)
	t.Cleanup(s.Kill)
	return s
}

// Region is one that every client of Dynalite may name.
const Region = "eu-west-3"

// Dynalite runs dynalite until the test ends, with an empty table of that name
// in HSDO's layout, and returns a client of it.
func Dynalite(t testing.TB, table string) (*Server, *dynamodb.Client) {
	t.Helper()
	program := need(t, "dynalite", "npm install --prefix ~/.cache/lb4d dynalite@4.0.0")
	port := freePorts(t, 1)[0]
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	s := &Server{URL: url, ready: url, args: []string{program, "--port", fmt.Sprint(port), "--path", t.TempDir(), "--createTableMs", "0"}}
	client := dynamodb.New(dynamodb.Options{
		Region: Region, BaseEndpoint: &url,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	})
	s.Start(t)
	t.Cleanup(s.Kill)
	_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName:             &table,
		AttributeDefinitions:  []types.AttributeDefinition{{AttributeName: aws.String("BackendServerID"), AttributeType: types.ScalarAttributeTypeN}},
		KeySchema:             []types.KeySchemaElement{{AttributeName: aws.String("BackendServerID"), KeyType: types.KeyTypeHash}},
		ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(20), WriteCapacityUnits: aws.Int64(20)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &table})
		if err == nil && out.Table.TableStatus == types.TableStatusActive {
			return s, client
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table does not come: %v", err)
		}
	}
}
