package asg

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// amazon is the query API of Auto Scaling and EC2, as far as it is used: forms
// in, XML out, pages, limits, throttling.
type amazon struct {
	mu     sync.Mutex
	groups []group
	hosts  map[string]host
	// page is how many elements a page has at most, below what is asked for.
	page int
	// throttled is how many more requests are turned away.
	throttled int
	// fault answers in place of an action, by its name.
	fault map[string]func(w http.ResponseWriter)
	asked []string // the actions
}

// group is an Auto Scaling group.
type group struct {
	XMLName   xml.Name  `xml:"member"`
	Name      string    `xml:"AutoScalingGroupName"`
	Instances []inGroup `xml:"Instances>member"`
}

// inGroup is an instance as its group knows it.
type inGroup struct {
	ID     string `xml:"InstanceId"`
	Zone   string `xml:"AvailabilityZone"`
	State  string `xml:"LifecycleState"`
	Health string `xml:"HealthStatus"`
}

// host is an instance as EC2 knows it.
type host struct {
	ID      string `xml:"instanceId"`
	State   string `xml:"instanceState>name,omitempty"`
	Address string `xml:"privateIpAddress,omitempty"`
	IPv6    string `xml:"ipv6Address,omitempty"`
	Tags    []tag  `xml:"tagSet>item"`
}

type tag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// newAmazon runs the API until the test ends.
func newAmazon(t *testing.T) (*amazon, string) {
	t.Helper()
	// The client looks nowhere else for credentials, and not at this host's.
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_CA_BUNDLE": "",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(key, value)
	}
	a := &amazon{hosts: make(map[string]host), page: 1000, fault: make(map[string]func(http.ResponseWriter))}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return a, server.URL
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.ParseForm()
	action := r.Form.Get("Action")
	a.asked = append(a.asked, action)
	service := map[string]string{
		"DescribeAutoScalingGroups": "autoscaling", "DescribeInstances": "ec2",
	}[action]
	switch {
	case service == "":
		fail(w, action, http.StatusBadRequest, "InvalidAction", "no action "+action)
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
		!strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/"+service+"/aws4_request"):
		fail(w, action, http.StatusForbidden, "AuthFailure", "not signed for this service")
	case a.throttled > 0:
		a.throttled--
		code := "Throttling"
		if service == "ec2" {
			code = "RequestLimitExceeded"
		}
		fail(w, action, http.StatusBadRequest, code, "Rate exceeded")
	case a.fault[action] != nil:
		a.fault[action](w)
	case service == "ec2":
		a.describeInstances(w, r)
	default:
		a.describeGroups(w, r)
	}
}

// fail answers with an error in the form of the service.
func fail(w http.ResponseWriter, action string, status int, code, message string) {
	form := `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`
	if action == "DescribeInstances" {
		form = `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>1</RequestID></Response>`
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, form, code, message)
}

// list is the values of a list in a form: prefix1, prefix2, ...
func list(r *http.Request, prefix string) []string {
	var values []string
	for i := 1; r.Form.Has(prefix + strconv.Itoa(i)); i++ {
		values = append(values, r.Form.Get(prefix+strconv.Itoa(i)))
	}
	return values
}

// cut is one page, of at most the number in the form, and the token of the next.
func cut[T any](r *http.Request, all []T, key string, page int) ([]T, string) {
	from, _ := strconv.Atoi(r.Form.Get("NextToken"))
	if most, err := strconv.Atoi(r.Form.Get(key)); err == nil {
		page = min(page, most)
	}
	to := min(from+page, len(all))
	if to == len(all) {
		return all[from:to], ""
	}
	return all[from:to], strconv.Itoa(to)
}

func (a *amazon) describeGroups(w http.ResponseWriter, r *http.Request) {
	names := list(r, "AutoScalingGroupNames.member.")
	if len(names) > 50 {
		fail(w, "DescribeAutoScalingGroups", http.StatusBadRequest, "ValidationError", "more than 50 names")
		return
	}
	var found []group
	for _, g := range a.groups {
		if slices.Contains(names, g.Name) {
			found = append(found, g)
		}
	}
	page, next := cut(r, found, "MaxRecords", a.page)
	type result struct {
		Groups []group `xml:"AutoScalingGroups>member"`
		Next   string  `xml:"NextToken,omitempty"`
	}
	answer(w, "DescribeAutoScalingGroupsResponse", struct {
		Result result `xml:"DescribeAutoScalingGroupsResult"`
	}{result{page, next}})
}

func (a *amazon) describeInstances(w http.ResponseWriter, r *http.Request) {
	ids := list(r, "Filter.1.Value.")
	if r.Form.Get("Filter.1.Name") != "instance-id" || len(ids) > 200 {
		fail(w, "DescribeInstances", http.StatusBadRequest, "InvalidParameterValue", "that filter is not known here")
		return
	}
	// Two reservations with half of the page each.
	var found []host
	for _, id := range ids {
		if h, exists := a.hosts[id]; exists {
			found = append(found, h)
		}
	}
	page, next := cut(r, found, "MaxResults", a.page)
	type reservation struct {
		Instances []host `xml:"instancesSet>item"`
	}
	answer(w, "DescribeInstancesResponse", struct {
		Reservations []reservation `xml:"reservationSet>item"`
		Next         string        `xml:"nextToken,omitempty"`
	}{[]reservation{{page[:len(page)/2]}, {page[len(page)/2:]}}, next})
}

// answer writes an element of this name.
func answer(w io.Writer, name string, content any) {
	xml.NewEncoder(w).EncodeElement(content, xml.StartElement{Name: xml.Name{Local: name}})
}

// add puts an instance in service, into a group that is made where there is none
// yet.
func (a *amazon) add(groupName string, member inGroup, h host) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.groups, func(g group) bool { return g.Name == groupName })
	if i < 0 {
		i = len(a.groups)
		a.groups = append(a.groups, group{Name: groupName})
	}
	if member.ID != "" {
		a.groups[i].Instances = append(a.groups[i].Instances, member)
	}
	if h.ID != "" {
		a.hosts[h.ID] = h
	}
}

// serves adds an instance that is in service and running.
func (a *amazon) serves(groupName, id, zone, address string, tags ...tag) {
	a.add(groupName, inGroup{id, zone, "InService", "Healthy"}, host{ID: id, State: "running", Address: address, Tags: tags})
}

// actions are those asked for since it was last called.
func (a *amazon) actions() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

// breaks has an action answered by f; nil: no more.
func (a *amazon) breaks(action string, f func(http.ResponseWriter)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault[action] = f
}
