package asg

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/discovery"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// source asks the API for these groups.
func source(url string, groups ...string) Source {
	return Source{
		Groups: groups, Port: 8080, Region: "eu-west-1", Endpoint: url,
		Interval: 10 * time.Millisecond, Timeout: patience,
	}
}

// hear runs a source until the test ends, and gives what it tells, a line each.
func hear(t *testing.T, s Source) <-chan string {
	t.Helper()
	told := make(chan string, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		s.run(ctx, time.Millisecond, func(entries []discovery.Entry, err error) {
			select {
			case told <- line(entries, err):
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return told
}

// line is what is told, in words.
func line(entries []discovery.Entry, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var words []string
	for _, e := range entries {
		word := e.Name + "=" + e.Target
		if e.Fault != "" {
			word += "!" + e.Fault
		}
		for _, label := range []string{discovery.LabelGroup, discovery.LabelZone, discovery.LabelWeight, discovery.LabelExclude} {
			if v := e.Labels[label]; v != "" {
				word += "," + v
			}
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return "[" + strings.Join(words, " ") + "]"
}

// next is what is told next.
func next(t *testing.T, told <-chan string) string {
	t.Helper()
	select {
	case line := <-told:
		return line
	case <-time.After(patience):
		t.Fatal("nothing was told")
		return ""
	}
}

// until skips what is told until it is want.
func until(t *testing.T, told <-chan string, want string) {
	t.Helper()
	deadline := time.After(patience)
	last := "nothing"
	for {
		select {
		case last = <-told:
			if last == want {
				return
			}
		case <-deadline:
			t.Fatalf("was not told, the last is (-want +got):\n%s", cmp.Diff(want, last))
		}
	}
}

func equal[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAsk(t *testing.T) {
	api, url := newAmazon(t)
	api.serves("blue", "i-1", "eu-west-1a", "10.0.0.1")
	api.serves("blue", "i-2", "eu-west-1b", "10.0.0.2",
		tag{"Name", "web"}, tag{"exclude_from_loadbalancer", "true"}, tag{"weight", "20"}, tag{"zone", "x"})
	api.serves("green", "i-3", "eu-west-1a", "10.0.0.3")
	api.serves("other", "i-4", "eu-west-1a", "10.0.0.4")
	api.add("empty", inGroup{}, host{})
	for i, state := range []string{"Pending", "Pending:Wait", "Standby", "EnteringStandby", "Terminating", "Terminating:Wait", "Detaching"} {
		api.add("blue", inGroup{fmt.Sprintf("i-not%d", i), "eu-west-1a", state, "Healthy"}, host{})
	}
	api.add("blue", inGroup{"i-ill", "eu-west-1a", "InService", "Unhealthy"}, host{})
	api.add("green", inGroup{"i-6", "eu-west-1c", "InService", "Healthy"}, host{ID: "i-6", State: "running", IPv6: "2001:db8::6"})
	api.add("green", inGroup{"i-7", "eu-west-1c", "InService", "Healthy"}, host{ID: "i-7", State: "shutting-down", Address: "10.0.0.7"})
	api.add("green", inGroup{"i-8", "eu-west-1c", "InService", "Healthy"}, host{ID: "i-8", State: "running"})
	api.add("green", inGroup{"i-9", "eu-west-1c", "InService", "Healthy"}, host{})

	told := hear(t, source(url, "blue", "green", "empty", "gone", "blue"))
	equal(t, "list", "["+strings.Join([]string{
		"gone=!there is no Auto Scaling group of this name",
		"i-1=10.0.0.1:8080,blue,eu-west-1a",
		"i-2=10.0.0.2:8080,blue,eu-west-1b,20,true",
		"i-3=10.0.0.3:8080,green,eu-west-1a",
		"i-6=[2001:db8::6]:8080,green,eu-west-1c",
		"i-7=!EC2 says that it is not running but shutting-down,green,eu-west-1c",
		"i-8=!it has no private address,green,eu-west-1c",
		"i-9=!EC2 has no such instance,green,eu-west-1c",
	}, " ")+"]", next(t, told))
}

// TestEmpty: no instance is a list too, and EC2 is not asked for nothing.
func TestEmpty(t *testing.T) {
	api, url := newAmazon(t)
	api.add("blue", inGroup{}, host{})
	told := hear(t, source(url, "blue"))
	equal(t, "list", "[]", next(t, told))
	if slices.Contains(api.actions(), "DescribeInstances") {
		t.Error("EC2 was asked for no instance")
	}
	equal(t, "groups that do not exist",
		`error: asking Auto Scaling for its groups: none of this name is in the region: ["red" "black"]`,
		next(t, hear(t, source(url, "red", "black"))))
}

// TestPages: groups and instances beyond one page and one request.
func TestPages(t *testing.T) {
	api, url := newAmazon(t)
	api.page = 7
	var groups []string
	for i := range 60 {
		groups = append(groups, fmt.Sprintf("group-%02d", i))
		for j := range 10 {
			api.serves(groups[i], fmt.Sprintf("i-%02d%02d", i, j), "a", fmt.Sprintf("10.1.%d.%d", i, j))
		}
	}
	s := source(url, groups...)
	s.Interval = time.Hour
	told := next(t, hear(t, s))
	if n := strings.Count(told, "=10.1."); n != 600 || strings.Contains(told, "!") {
		t.Errorf("%d instances of 600: %s", n, told)
	}
	asked := map[string]int{}
	for _, action := range api.actions() {
		asked[action]++
	}
	// 50 and 10 names; three filters of 200 instances; 7 on a page.
	equal(t, "requests", map[string]int{"DescribeAutoScalingGroups": 8 + 2, "DescribeInstances": 3 * 29}, asked)
}

func TestTooMany(t *testing.T) {
	api, url := newAmazon(t)
	for i := range discovery.MaxServers + 1 {
		api.serves("blue", fmt.Sprintf("i-%d", i), "a", "10.0.0.1")
	}
	equal(t, "told", "error: asking Auto Scaling for its groups: there are 4097 instances or more, and 4096 is the most",
		next(t, hear(t, source(url, "blue"))))
}

// TestThrottled: throttling is waited out, and where it does not end it is a
// failure like others.
func TestThrottled(t *testing.T) {
	api, url := newAmazon(t)
	api.serves("blue", "i-1", "a", "10.0.0.1")
	const whole = "[i-1=10.0.0.1:8080,blue,a]"
	api.throttled = attempts - 1
	s := source(url, "blue")
	told := hear(t, s)
	equal(t, "told after throttling", whole, next(t, told))
	equal(t, "requests", slices.Concat(slices.Repeat([]string{"DescribeAutoScalingGroups"}, attempts), []string{"DescribeInstances"}),
		api.actions()[:attempts+1])

	api.mu.Lock()
	api.throttled = 3 * attempts
	api.mu.Unlock()
	until(t, told, "error: asking Auto Scaling for its groups: Throttling: Rate exceeded")
	until(t, told, whole)

	throttle := func(w http.ResponseWriter) {
		fail(w, "DescribeInstances", 503, "RequestLimitExceeded", "Request limit exceeded.")
	}
	api.breaks("DescribeInstances", throttle)
	until(t, told, "error: asking EC2 for instances: RequestLimitExceeded: Request limit exceeded.")
	api.breaks("DescribeInstances", nil)
	until(t, told, whole)
}

func TestFaults(t *testing.T) {
	api, url := newAmazon(t)
	api.serves("blue", "i-1", "a", "10.0.0.1")
	released := make(chan struct{})
	defer close(released)
	for _, tt := range []struct {
		name, action string
		fault        func(http.ResponseWriter)
		want         string // what the error begins with
	}{
		{"no permission", "DescribeAutoScalingGroups", func(w http.ResponseWriter) {
			fail(w, "DescribeAutoScalingGroups", 403, "AccessDenied", "User: x is not authorized")
		}, "error: asking Auto Scaling for its groups: AccessDenied: User: x is not authorized"},
		{"no permission of EC2", "DescribeInstances", func(w http.ResponseWriter) {
			fail(w, "DescribeInstances", 403, "UnauthorizedOperation", "You are not authorized")
		}, "error: asking EC2 for instances: UnauthorizedOperation: You are not authorized"},
		{"out of order", "DescribeInstances", func(w http.ResponseWriter) { w.WriteHeader(500) },
			"error: asking EC2 for instances: it answered 500 Internal Server Error"},
		{"no XML", "DescribeAutoScalingGroups", func(w http.ResponseWriter) { fmt.Fprint(w, "<html>log in") },
			"error: asking Auto Scaling for its groups: it answered 200 OK: deserialization failed"},
		{"no end", "DescribeAutoScalingGroups", func(w http.ResponseWriter) {
			fmt.Fprint(w, "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><x>")
			for range discovery.MaxBytes/1024 + 1 {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 1024)); err != nil {
					return
				}
			}
		}, "error: asking Auto Scaling for its groups: an answer has more than 16777216 bytes"},
		{"no last page", "DescribeInstances", func(w http.ResponseWriter) {
			fmt.Fprint(w, "<DescribeInstancesResponse><nextToken>x</nextToken></DescribeInstancesResponse>")
		}, "error: asking EC2 for instances: the answer has no last page"},
		{"no answer", "DescribeInstances", func(w http.ResponseWriter) {
			api.mu.Unlock() // of ServeHTTP
			<-released
			api.mu.Lock()
		}, "error: asking EC2 for instances: timeout after 2s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api.breaks(tt.action, tt.fault)
			defer api.breaks(tt.action, nil)
			s := source(url, "blue")
			if tt.name == "no answer" {
				s.Timeout = 2 * time.Second
			}
			told := hear(t, s)
			got := next(t, told)
			t.Log(got)
			if !strings.HasPrefix(got, tt.want) || strings.Contains(got, "s3cret") {
				t.Errorf("told %s, want %s", got, tt.want)
			}
			api.breaks(tt.action, nil)
			until(t, told, "[i-1=10.0.0.1:8080,blue,a]")
		})
	}
}

func TestSettings(t *testing.T) {
	_, url := newAmazon(t)
	s := source(url, "blue")
	s.Region = ""
	if got := next(t, hear(t, s)); !strings.HasPrefix(got, "error: preparing to ask AWS: ") {
		t.Errorf("without a region: told %s", got)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if got := next(t, hear(t, source(url, "blue"))); !strings.Contains(got, "credentials") {
		t.Errorf("without credentials: told %s", got)
	}
	equal(t, "name", "aws_asg blue green", source("", "blue", "green").String())
}

// TestObserver: instances come, go, and drain.
func TestObserver(t *testing.T) {
	api, url := newAmazon(t)
	api.serves("blue", "i-1", "a", "10.0.0.1")
	changed := make(chan struct{}, 100)
	o := discovery.New(slog.New(slog.DiscardHandler), t.TempDir(), func() { changed <- struct{}{} })
	defer o.Close()
	o.Set(map[string]discovery.Source{"web": source(url, "blue")})
	servers := func() []string {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatal("nothing changed")
		}
		state, _ := o.State("web")
		var words []string
		for _, s := range state.List.Servers {
			words = append(words, fmt.Sprintf("%s %v:%d %+v", s.Name, s.Addr, s.Port, s.Labels))
		}
		return words
	}
	equal(t, "first", []string{"i-1 10.0.0.1:8080 {Weight:0 Zone:a Group:blue Excluded:false}"}, servers())
	api.serves("blue", "i-2", "b", "10.0.0.2", tag{"exclude_from_loadbalancer", "yes"})
	equal(t, "second", []string{
		"i-1 10.0.0.1:8080 {Weight:0 Zone:a Group:blue Excluded:false}",
		"i-2 10.0.0.2:8080 {Weight:0 Zone:b Group:blue Excluded:true}",
	}, servers())
	api.mu.Lock()
	api.groups[0].Instances = api.groups[0].Instances[1:]
	api.mu.Unlock()
	equal(t, "third", []string{"i-2 10.0.0.2:8080 {Weight:0 Zone:b Group:blue Excluded:true}"}, servers())
}
