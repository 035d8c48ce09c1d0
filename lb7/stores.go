package lb7

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"lb4d/config"
	"lb4d/l7/store"
)

// stores opens the store of each record. One client serves them all.
type stores struct {
	cfg      config.Store
	stateDir string
	etcd     *clientv3.Client
	dynamo   *dynamodb.Client
}

// openStores prepares the clients. It does not wait for the store to answer.
func openStores(ctx context.Context, cfg *config.LB7) (*stores, error) {
	s := &stores{cfg: cfg.Store, stateDir: cfg.StateDir}
	var err error
	switch cfg.Store.Kind {
	case config.StoreEtcd:
		var t *tls.Config
		if t, err = tlsOf(cfg.Store); err == nil {
			s.etcd, err = store.DialEtcd(store.EtcdOptions{
				Endpoints: cfg.Store.Endpoints, Username: cfg.Store.Username, Password: string(cfg.Store.Password), TLS: t,
			})
		}
	case config.StoreDynamoDB:
		s.dynamo, err = store.DialDynamoDB(ctx, cfg.Store.Region, cfg.Store.Endpoint)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// tlsOf is how etcd is spoken to over https; nil where the system's authorities
// do and no certificate is shown.
func tlsOf(s config.Store) (*tls.Config, error) {
	if s.CAFile == "" && s.CertFile == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading store.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading store.ca_file: %s holds no certificate in PEM", s.CAFile)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading store.cert_file and store.key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// of is the store of a back end's record, and what it is in words. A copy on
// the disk serves where a store over the network is away at a start.
func (s *stores) of(b config.Backend) (store.Store, string) {
	path := recordPath(s.stateDir, b.Name)
	switch s.cfg.Kind {
	case config.StoreEtcd:
		return store.Keep(store.NewEtcd(s.etcd, s.cfg.Prefix, b.Name), path), "etcd " + strings.Join(s.cfg.Endpoints, " ")
	case config.StoreDynamoDB:
		port := s.cfg.HSDOPort
		if b.Source.AWS != nil {
			port = b.Source.AWS.Port
		}
		return store.Keep(store.NewDynamoDB(s.dynamo, store.DynamoDBOptions{
			Table: b.Table, Port: port, Weight: b.Weight, Poll: s.cfg.Poll,
		}), path), "dynamodb " + b.Table
	}
	return store.NewFile(path), "file " + path
}

func (s *stores) close() {
	if s.etcd != nil {
		_ = s.etcd.Close()
	}
}
