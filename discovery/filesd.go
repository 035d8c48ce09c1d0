package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ParseJSON reads a list in the JSON form that Prometheus's file_sd and http_sd
// share:
//
//	[{"targets": ["192.0.2.1:80"], "labels": {"weight": "10", "zone": "a"}}]
//
// What is no such list is an error: part of it may be missing, and what is
// missing must not look as if it were gone. A key that file_sd does not have is
// an error too, as in Prometheus, because "label" for "labels" would let traffic
// to a server that is excluded. Whether each entry can be a server is not asked
// here. Unlike Prometheus it takes numbers and booleans for the values of labels.
func ParseJSON(data []byte) ([]Entry, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	// Group by group, so that what a hostile list takes in memory is bounded
	// by the limits of a good one.
	if err := opened(decoder, '['); err != nil {
		return nil, placed(decoder, err)
	}
	entries := []Entry{}
	for groups := 0; decoder.More(); groups++ {
		if groups == MaxServers {
			return nil, tooMany(groups)
		}
		var group jsonGroup
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&group); err != nil {
			return nil, placed(decoder, err)
		}
		if !group.given {
			return nil, placed(decoder, errors.New("a group is null"))
		}
		if entries = group.add(entries); len(entries) > MaxServers {
			return nil, tooMany(len(entries))
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, placed(decoder, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, placed(decoder, errors.New("there is more after the list"))
	}
	return entries, nil
}

// jsonGroup is an element of the list.
type jsonGroup struct {
	group
	given bool // not null
}

// group is some targets and the labels that all of them have.
type group struct {
	targets []string
	labels  map[string]string
}

// add appends the entries of a group.
func (g group) add(entries []Entry) []Entry {
	for _, target := range g.targets {
		entries = append(entries, Entry{Name: g.labels[LabelName], Target: target, Labels: g.labels})
	}
	return entries
}

// UnmarshalJSON reads one group.
func (g *jsonGroup) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil // Decode calls it for null too, where g is no pointer
	}
	var fields struct {
		Targets jsonTargets `json:"targets"`
		Labels  jsonLabels  `json:"labels"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fields); err != nil {
		return err
	}
	*g = jsonGroup{group{fields.Targets, fields.Labels}, true}
	return nil
}

// jsonTargets stops reading where there are too many.
type jsonTargets []string

// UnmarshalJSON reads an array of strings.
func (t *jsonTargets) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := opened(decoder, '['); err != nil {
		return fmt.Errorf("reading targets: %w", err)
	}
	for decoder.More() {
		if len(*t) == MaxServers {
			return tooMany(len(*t))
		}
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		target, isString := token.(string)
		if !isString {
			return fmt.Errorf("a target is %v and no string", token)
		}
		*t = append(*t, target)
	}
	return nil
}

// jsonLabels keeps the labels that mean something.
type jsonLabels map[string]string

// UnmarshalJSON reads an object whose values are strings, numbers or booleans.
func (l *jsonLabels) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := opened(decoder, '{'); err != nil {
		return fmt.Errorf("reading labels: %w", err)
	}
	labels := jsonLabels{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		value, err := decoder.Token()
		if err != nil {
			return err
		}
		name := key.(string) // the decoder takes no other key
		if _, nested := value.(json.Delim); nested {
			return fmt.Errorf("the label %s is neither a string nor a number nor a boolean", shown(name))
		}
		if value != nil && meaningful(name) {
			labels[name] = fmt.Sprint(value)
		}
	}
	*l = labels
	return nil
}

// meaningful tells whether a label is one of those above.
func meaningful(label string) bool {
	switch label {
	case LabelName, LabelWeight, LabelZone, LabelGroup, LabelExclude:
		return true
	}
	return false
}

// opened reads the bracket that must come next.
func opened(decoder *json.Decoder, bracket json.Delim) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	if token != bracket {
		return fmt.Errorf("%s comes where %v should", shown(fmt.Sprint(token)), bracket)
	}
	return nil
}

// placed adds how far the list was good.
func placed(decoder *json.Decoder, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if decoder.InputOffset() == 0 {
			return errors.New("parsing JSON: it is empty")
		}
		return errors.New("parsing JSON: the end is missing")
	}
	return fmt.Errorf("parsing JSON, after byte %d: %w", decoder.InputOffset(), err)
}
