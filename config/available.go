package config

import "slices"

// choice is one of the words that a key may have as its value.
type choice struct {
	word string
	// available tells that this version can carry it out. The words that it
	// cannot are part of the file's language all the same: they are refused
	// with what to write instead, and not as if nobody knew them.
	available bool
}

var (
	// encapsulations are the values of pool.NAME.encapsulation.
	encapsulations = []choice{
		{"ipip", true},
		{"gue", false},
		{"gre", false},
	}
	// paths are the values of pool.NAME.check.via.
	paths = []choice{
		{string(ViaTunnel), true},
		{string(ViaDirect), true},
	}
)

// choose is the word that t chooses, or the first where the key is left out.
func (c *checker) choose(t text, choices []choice) string {
	first := choices[0].word
	if !t.ok {
		return first
	}
	i := slices.IndexFunc(choices, func(ch choice) bool { return ch.word == t.value })
	if i >= 0 && choices[i].available {
		return t.value
	}
	var words []string
	for _, ch := range choices {
		if ch.available {
			words = append(words, `"`+ch.word+`"`)
		}
	}
	wrong := "is not known"
	if i >= 0 {
		wrong = "is not available in this version"
	}
	c.fault(t.place, "%s %s; write %s, or leave the key out", quote(t.value), wrong, list(words, "or"))
	return first
}
