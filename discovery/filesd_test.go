package discovery

import (
	"fmt"
	"strings"
	"testing"
)

// parsed are the cases that JSON and YAML share.
var parsed = []struct {
	name string
	text string
	want []Entry
}{
	{"an empty list", `[]`, []Entry{}},
	{"a group without targets", `[{"labels": {"zone": "a"}}, {"targets": []}]`, []Entry{}},
	{
		"as Prometheus documents it",
		`[
  {"targets": ["10.0.10.2:9100", "10.0.10.3:9100"], "labels": {"group": "london"}},
  {"targets": ["10.0.40.2:9100"]}
]`,
		[]Entry{
			{Target: "10.0.10.2:9100", Labels: map[string]string{"group": "london"}},
			{Target: "10.0.10.3:9100", Labels: map[string]string{"group": "london"}},
			{Target: "10.0.40.2:9100"},
		},
	},
	{
		"values that are no strings",
		`[{"targets": ["a:1"], "labels": {"name": "x", "weight": 10, "exclude_from_loadbalancer": true}}]`,
		[]Entry{{Name: "x", Target: "a:1", Labels: map[string]string{
			"name": "x", "weight": "10", "exclude_from_loadbalancer": "true"}}},
	},
	{"targets are not looked at here", `[{"targets": ["", "a b", "x:99999"]}]`, []Entry{{Target: ""}, {Target: "a b"}, {Target: "x:99999"}}},
}

func TestParse(t *testing.T) {
	for _, tt := range parsed {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseJSON([]byte(tt.text))
			must(t, err)
			for i := range got { // an empty map is as good as none
				if len(got[i].Labels) == 0 {
					got[i].Labels = nil
				}
			}
			want(t, "JSON", tt.want, got)
			// What these lists are made of is YAML too.
			got, err = ParseYAML([]byte(tt.text))
			must(t, err)
			want(t, "YAML", tt.want, got)
		})
	}
}

func TestParseJSONIgnores(t *testing.T) {
	got, err := ParseJSON([]byte(`[{"targets": ["a:1"], "labels": {"__meta_x": "` + strings.Repeat("x", 1<<20) + `", "zone": null, "job": 1.50}}]`))
	must(t, err)
	want(t, "entries", []Entry{{Target: "a:1", Labels: map[string]string{}}}, got)
}

func TestParseYAML(t *testing.T) {
	got, err := ParseYAML([]byte(`
# servers
- targets: [192.0.2.1:80, "192.0.2.2:80"]
  labels: &common
    zone: a
    weight: 007
    exclude_from_loadbalancer: yes
- targets:
  - 192.0.2.3:80
  labels:
    <<: *common
    group:
`))
	must(t, err)
	common := map[string]string{"zone": "a", "weight": "007", "exclude_from_loadbalancer": "yes"}
	want(t, "entries", []Entry{
		{Target: "192.0.2.1:80", Labels: common},
		{Target: "192.0.2.2:80", Labels: common},
		{Target: "192.0.2.3:80", Labels: map[string]string{"zone": "a", "weight": "007", "exclude_from_loadbalancer": "yes", "group": ""}},
	}, got)
}

// TestParseRefuses: what is not a whole list is an error and no short list.
func TestParseRefuses(t *testing.T) {
	const whole = `[{"targets": ["192.0.2.1:80"], "labels": {"zone": "a"}}, {"targets": ["192.0.2.2:80"]}]`
	for n := range len(whole) {
		if entries, err := ParseJSON([]byte(whole[:n])); err == nil {
			t.Errorf("JSON cut to %q is a list of %d", whole[:n], len(entries))
		}
		// In flow style the end of a list is seen in YAML too.
		if entries, err := ParseYAML([]byte(whole[:n])); err == nil {
			t.Errorf("YAML cut to %q is a list of %d", whole[:n], len(entries))
		}
	}
	many := strings.Repeat(`"a:1",`, MaxServers)
	for _, tt := range []struct{ text, json, yaml string }{
		{``, "parsing JSON: it is empty", "parsing YAML: it is empty (an empty list is [])"},
		{" \n", "parsing JSON", "parsing YAML: it is empty (an empty list is [])"},
		{`null`, "<nil> comes where [ should", "parsing YAML: there is no list (an empty list is [])"},
		{`{}`, "{ comes where [ should", "parsing YAML"},
		{`"x"`, "x comes where [ should", "parsing YAML"},
		{`[] []`, "there is more after the list", "parsing YAML"},
		{`[null]`, "a group is null", "a group is null"},
		{`["192.0.2.1:80"]`, "parsing JSON", "parsing YAML"},
		{`[{"target": ["192.0.2.1:80"]}]`, `unknown field "target"`, "field target not found"},
		{`[{"targets": ["192.0.2.1:80"], "label": {}}]`, `unknown field "label"`, "field label not found"},
		{`[{"targets": "192.0.2.1:80"}]`, "192.0.2.1:80 comes where [ should", "parsing YAML"},
		{`[{"targets": [["a"]]}]`, "a target is [ and no string", "parsing YAML"},
		{`[{"targets": [], "labels": ["zone"]}]`, "[ comes where { should", "parsing YAML"},
		{`[{"targets": [], "labels": {"zone": {"a": 1}}}]`, "the label zone is neither a string nor a number nor a boolean", "parsing YAML"},
		{`[{"targets": [` + many + `"a:1"]}]`, "the list has 4096 entries or more", "the list has 4097 entries or more"},
		{`[{"targets": [` + many[:len(many)-1] + `]}, {"targets": ["a:1"]}]`, "the list has 4097 entries or more", "the list has 4097 entries or more"},
		{`[` + strings.Repeat(`{},`, MaxServers) + `{}]`, "the list has 4096 entries or more", ""},
		{strings.Repeat("[", 20000), "parsing JSON", "parsing YAML"},
	} {
		name := shown(tt.text)
		if entries, err := ParseJSON([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.json) {
			t.Errorf("JSON %s: got %d entries and error %v, want %q", name, len(entries), err, tt.json)
		}
		entries, err := ParseYAML([]byte(tt.text))
		if tt.yaml == "" {
			must(t, err)
		} else if err == nil || !strings.Contains(err.Error(), tt.yaml) {
			t.Errorf("YAML %s: got %d entries and error %v, want %q", name, len(entries), err, tt.yaml)
		}
	}
	for _, text := range []string{
		"- targets: [a:1]\n---\n- targets: [b:1]\n",
		"- targets: [a:1]\n  targets: [b:1]\n",
		"&a [*a]",
		"# nothing\n",
		"[" + strings.Repeat("a,", maxElements) + "a]",
		strings.Repeat("-\n", maxElements+1),
		laughs(),
		"- targets: []\n  labels: {" + strings.Repeat("a:,", 200_000) + "}",
		strings.Repeat("? a\n", 100_000),
	} {
		if entries, err := ParseYAML([]byte(text)); err == nil {
			t.Errorf("YAML %s is a list of %d", shown(text), len(entries))
		}
	}
}

// laughs is a short document that stands for a long one.
func laughs() string {
	var b strings.Builder
	b.WriteString("- targets: &a0 [\"a:1\"]\n")
	for i := range 30 {
		fmt.Fprintf(&b, "- targets: &a%d [*a%d, *a%d]\n", i+1, i, i)
	}
	return b.String()
}

func FuzzParseJSON(f *testing.F) {
	for _, tt := range parsed {
		f.Add([]byte(tt.text))
	}
	f.Add([]byte(`[{"targets":["a:1"],"labels":{"a":"b","name":null,"weight":1e9}}] `))
	f.Fuzz(func(t *testing.T, data []byte) { requireList(t, ParseJSON, data) })
}

func FuzzParseYAML(f *testing.F) {
	for _, tt := range parsed {
		f.Add([]byte(tt.text))
	}
	f.Add([]byte("- targets: [a:1]\n  labels: &x {<<: {weight: 1}, zone: !!binary YQ==}\n- labels: *x\n"))
	f.Fuzz(func(t *testing.T, data []byte) { requireList(t, ParseYAML, data) })
}

// requireList fails where a parser gives more than a list may have, or an error
// together with a list.
func requireList(t *testing.T, parse func([]byte) ([]Entry, error), data []byte) {
	t.Helper()
	entries, err := parse(data)
	switch {
	case err != nil && entries != nil:
		t.Errorf("%d entries and error %v", len(entries), err)
	case err == nil && entries == nil:
		t.Error("neither a list nor an error")
	case len(entries) > MaxServers:
		t.Errorf("%d entries", len(entries))
	}
	servers, refused := sift(entries, nil)
	if len(servers)+len(refused) != len(entries) {
		t.Errorf("%d entries became %d servers and %d refusals", len(entries), len(servers), len(refused))
	}
}
