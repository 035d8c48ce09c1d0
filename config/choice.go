package config

import "slices"

var (
	// encapsulations are the values of pool.NAME.encapsulation.
	encapsulations = []string{string(IPIP), string(GUE), string(GRE)}
	// paths are the values of pool.NAME.check.via.
	paths = []string{string(ViaTunnel), string(ViaDirect)}
)

// choose is the word that t chooses, or the first where the key is left out.
func (c *checker) choose(t text, words []string) string {
	if !t.ok {
		return words[0]
	}
	if slices.Contains(words, t.value) {
		return t.value
	}
	var quoted []string
	for _, word := range words {
		quoted = append(quoted, `"`+word+`"`)
	}
	c.fault(t.place, "%s is not known; write %s, or leave the key out", quote(t.value), list(quoted, "or"))
	return words[0]
}
