package l7

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"

	"lb4d/l7/slots"
)

// Include is a configuration file with a back end's servers as they are, which
// HAProxy reads when it starts or reloads (haproxy -f MAIN -f THIS). HAProxy
// has no way to continue a section in another file, so the file begins with
// the back end's head; what else belongs to the back end stands in a named
// defaults section of the main file that the head refers to.
type Include struct {
	Path string
	// Head opens the section: "backend servers from servers-defaults". It may
	// be several lines.
	Head string
	// Prefix and the slot's number are the server's name.
	Prefix string
	// Options end each server line: "check inter 1s".
	Options string
	// Slots is how many servers the file has at least, so that they are there
	// to be given addresses.
	Slots int
}

// placeholder is the address of a server that has none: the discard port of a
// loopback address that nothing listens on, so that even a server enabled by
// mistake reaches nobody.
const placeholder = "127.0.0.2:9"

// Text is the file's text for a share. Only a server that should take traffic
// now, and has passed a check somewhere, is enabled: any other one comes in by
// Apply, behind its check. The number is given as the id too, which is what
// the consistent hash places a server by.
func (i Include) Text(wanted []slots.Slot) ([]byte, error) {
	if strings.ContainsAny(i.Options, "\n\r") {
		return nil, errors.New("writing the include file: the options have a newline")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Kept by lb7d from its slot record; what is changed here by hand is lost.\n%s\n", strings.TrimRight(i.Head, "\n"))
	view := make([]slots.Slot, max(i.Slots, len(wanted)))
	for n := range view {
		view[n] = slots.Slot{Number: n + 1, State: slots.Free}
	}
	for _, w := range wanted {
		if w.Number < 1 || w.Number > len(view) {
			return nil, fmt.Errorf("writing the include file: slot %d is not in 1 to %d", w.Number, len(view))
		}
		view[w.Number-1] = w
	}
	// What has been through here is safe to write on a line.
	if err := (slots.Record{Slots: view}).Check(); err != nil {
		return nil, fmt.Errorf("writing the include file: %w", err)
	}
	for _, w := range view {
		at, weight, tail := placeholder, 1, " disabled"
		if w.State != slots.Free {
			at, weight = w.Addr.String(), w.Weight
			if w.State == slots.Ready && !w.PassedAt.IsZero() {
				tail = ""
			}
			tail += " # " + w.ID
		}
		options := ""
		if i.Options != "" {
			options = " " + i.Options
		}
		fmt.Fprintf(&b, "\tserver %s%d %s id %d weight %d%s%s\n", i.Prefix, w.Number, at, w.Number, weight, options, tail)
	}
	return b.Bytes(), nil
}

// Write writes the file where its text differs, at one stroke, so that HAProxy
// reads one share or the next and nothing between. It tells whether it did.
func (i Include) Write(wanted []slots.Slot) (bool, error) {
	text, err := i.Text(wanted)
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(i.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the include file: %w", err)
	}
	if err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	if err := renameio.WriteFile(i.Path, text, 0o644); err != nil {
		return false, fmt.Errorf("writing the include file %s: %w", i.Path, err)
	}
	return true, nil
}
