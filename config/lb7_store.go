package config

import (
	"math"
	"net/url"
	"strings"
	"time"
)

const (
	defaultLease    = 5 * time.Second
	defaultPrefix   = "/lb7d"
	defaultPoll     = time.Second
	defaultHSDOPort = 80
	// maxEtcdURLs bounds etcd's addresses; a cluster has three or five.
	maxEtcdURLs = 16
)

// store validates [store]. Without the table the records are in files of the
// state directory.
func (c *checker) store(raw *rawLB7) Store {
	r := &raw.store
	s := Store{
		Kind:     StoreFile,
		Lease:    c.duration(r.lease, defaultLease, time.Second, time.Hour),
		Prefix:   defaultPrefix,
		Poll:     c.duration(r.poll, defaultPoll, 100*time.Millisecond, time.Minute),
		HSDOPort: uint16(c.integer(r.hsdoPort, defaultHSDOPort, 1, math.MaxUint16)),
	}
	ofEtcd := []given{r.prefix.given, r.username.given, r.passwordFile.given, r.caFile.given, r.certFile.given, r.keyFile.given}
	ofDynamo := []given{r.region.given, r.endpoint.given, r.poll.given, r.hsdoPort.given}
	switch {
	case r.etcd.present && r.dynamodb.present:
		c.fault(r.dynamodb.place, "there is etcd = in line %d too, and the records are in one store; leave one of them out", r.etcd.line)
		return s
	case r.etcd.present:
		s.Kind = StoreEtcd
		c.etcd(r, &s)
		c.misplaced("for etcd", ofDynamo...)
	case r.dynamodb.present:
		s.Kind = StoreDynamoDB
		c.tableName(r.dynamodb)
		s.Region = c.word(r.region, `a region such as "eu-west-3"`)
		s.Endpoint = c.url(r.endpoint, "", `"http://127.0.0.1:4567"`)
		c.misplaced("for dynamodb", ofEtcd...)
	default:
		c.misplaced("without etcd", ofEtcd...)
		c.misplaced("without dynamodb", ofDynamo...)
	}
	return s
}

func (c *checker) etcd(r *rawStore, s *Store) {
	switch n := len(r.etcd.values); {
	case r.etcd.ok && n == 0:
		c.fault(r.etcd.place, `the list is empty; write the URLs of etcd, such as ["http://127.0.0.1:2379"]`)
	case n > maxEtcdURLs:
		c.fault(r.etcd.place, "there are %d URLs; write at most %d", n, maxEtcdURLs)
	}
	for _, e := range r.etcd.values {
		s.Endpoints = append(s.Endpoints, c.url(e, "", `"http://127.0.0.1:2379"`))
	}
	if r.prefix.ok {
		s.Prefix = c.word(r.prefix, `the beginning of the keys, such as "/lb7d"`)
	}
	s.Username = c.word(r.username, "the user's name")
	s.Password = c.password(r.passwordFile, etcdPassword)
	switch {
	case r.username.present && !r.passwordFile.present:
		c.fault(r.username.place, `a user needs a password; write password_file = "/etc/lb/etcd.key", or leave the key out`)
	case r.passwordFile.present && !r.username.present:
		c.fault(r.passwordFile.place, `there is no username; write username = "lb7d", or leave the key out`)
	}
	s.CAFile = c.filePath(r.caFile, "", maxPath)
	s.CertFile = c.filePath(r.certFile, "", maxPath)
	s.KeyFile = c.filePath(r.keyFile, "", maxPath)
	switch {
	case r.certFile.present && !r.keyFile.present:
		c.fault(r.certFile.place, "a certificate needs its key; write key_file too")
	case r.keyFile.present && !r.certFile.present:
		c.fault(r.keyFile.place, "a key needs its certificate; write cert_file too")
	}
}

// tableName is the name of a DynamoDB table.
func (c *checker) tableName(t text) string {
	if t.ok && (len(t.value) < 3 || len(t.value) > 255 || strings.Trim(t.value, letters+digits+"._-") != "") {
		c.fault(t.place, "%s is not the name of a table; write 3 to 255 letters, digits, and . _ -", quote(t.value))
	}
	return t.value
}

// badURL says what is wrong with a URL, or nothing. A password in it is not
// shown.
func badURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case !strings.Contains(s, "://"):
		// "127.0.0.1:80" is no URL, and "localhost:80" one with a scheme
		// localhost; both lack the same.
		return "the URL begins with neither http:// nor https://"
	case err != nil:
		return "the URL cannot be read"
	case u.Scheme != "http" && u.Scheme != "https":
		return "the URL begins with neither http:// nor https://"
	case u.Host == "" || u.Hostname() == "":
		return "the URL names no host"
	case u.Fragment != "":
		return "the URL has a fragment (#), which is not sent"
	case hasControl(s) || strings.Contains(s, " "):
		return "the URL holds a blank or a control character"
	}
	return ""
}
