package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// keptVersion is that of the form below. A file of another version is not read.
const keptVersion = 1

// keptList is a List in the state directory. What was refused is not kept: the
// source will say so again.
type keptList struct {
	Version int          `json:"version"`
	Source  string       `json:"source"`
	At      time.Time    `json:"at"`
	Servers []keptServer `json:"servers"`
}

type keptServer struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Port     uint16 `json:"port"`
	Weight   int    `json:"weight,omitempty"`
	Zone     string `json:"zone,omitempty"`
	Group    string `json:"group,omitempty"`
	Excluded bool   `json:"excluded,omitempty"`
}

// keptPath is the file of one back end. Whatever its name, the file is in dir
// and no other back end's.
func keptPath(dir, backend string) string {
	return filepath.Join(dir, "discovery-"+url.PathEscape(backend)+".json")
}

// save writes a list so that the file is whole at any moment: the one before or
// this one.
func save(path string, list List) error {
	kept := keptList{
		Version: keptVersion,
		Source:  list.Source,
		At:      list.At.UTC().Round(0),
		Servers: make([]keptServer, 0, len(list.Servers)),
	}
	for _, s := range list.Servers {
		kept.Servers = append(kept.Servers, keptServer{
			Name:     s.Name,
			Address:  s.Addr.String(),
			Port:     s.Port,
			Weight:   s.Weight,
			Zone:     s.Zone,
			Group:    s.Group,
			Excluded: s.Excluded,
		})
	}
	data, err := json.MarshalIndent(kept, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the server list: %w", err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("keeping the server list: %w", err)
	}
	return nil
}

// restore reads what save wrote; a file that does not exist is an empty List
// without a time. Somebody may have edited the file, or the disk lost part of
// it, so each server passes the same gate as one that comes from a source. There
// is no such thing as a half good file of our own: one fault refuses it.
func restore(path string) (List, error) {
	data, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return List{}, nil
	}
	if err != nil {
		return List{}, fmt.Errorf("reading the kept server list: %w", err)
	}
	list, err := parseKept(data)
	if err != nil {
		return List{}, fmt.Errorf("reading the kept server list %s: %w", path, err)
	}
	return list, nil
}

func parseKept(data []byte) (List, error) {
	var kept keptList
	if err := json.Unmarshal(data, &kept); err != nil {
		return List{}, err
	}
	switch {
	case kept.Version != keptVersion:
		return List{}, fmt.Errorf("version is %d, and %d is known", kept.Version, keptVersion)
	case kept.At.IsZero():
		return List{}, errors.New("at is missing")
	case len(kept.Servers) > MaxServers:
		return List{}, tooMany(len(kept.Servers))
	}
	entries := make([]Entry, 0, len(kept.Servers))
	for _, s := range kept.Servers {
		entry := Entry{
			Name:   s.Name,
			Target: net.JoinHostPort(s.Address, strconv.Itoa(int(s.Port))),
			Labels: map[string]string{LabelZone: s.Zone, LabelGroup: s.Group},
		}
		if s.Excluded {
			entry.Labels[LabelExclude] = "true"
		}
		if s.Weight != 0 {
			entry.Labels[LabelWeight] = strconv.Itoa(s.Weight)
		}
		entries = append(entries, entry)
	}
	servers, refused := sift(entries, nil)
	if len(refused) > 0 {
		return List{}, fmt.Errorf("%s: %s", refused[0].Entry, refused[0].Reason)
	}
	return List{Servers: servers, At: kept.At, Source: shorten(kept.Source)}, nil
}

// readRegular reads a regular file of at most MaxBytes. It waits for nothing,
// whatever is at path.
func readRegular(path string) ([]byte, error) {
	// Before it is opened: opening a device may do something.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	// It may have been replaced by a pipe since, which is waited on without
	// O_NONBLOCK.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Size() > MaxBytes:
		return nil, fmt.Errorf("%s has %d bytes, and %d is the most", path, info.Size(), MaxBytes)
	}
	return readBounded(file)
}

// readBounded reads to the end, or refuses what has more than MaxBytes.
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("there are more than %d bytes", MaxBytes)
	}
	return data, nil
}

// tooMany is the error of a list beyond MaxServers.
func tooMany(n int) error {
	return fmt.Errorf("the list has %d entries or more, and %d is the most", n, MaxServers)
}
