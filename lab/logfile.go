package lab

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// logLimit bounds a process's log: at that many octets the file is kept once
// as NAME.old and begun anew.
const logLimit = 1 << 20

// logFile is what a process wrote, bounded.
type logFile struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	l := &logFile{path: path}
	if err := l.reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

// reopen begins an empty file.
func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	l.file, l.size = f, 0
	return nil
}

// Write implements io.Writer.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(b)) > logLimit {
		l.file.Close()
		_ = os.Rename(l.path, l.path+".old")
		if err := l.reopen(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// Close implements io.Closer.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// copyTo writes the log, oldest line first.
func (l *logFile) copyTo(w io.Writer) error {
	for _, path := range []string{l.path + ".old", l.path} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // There is no older part.
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// lastLine is the last line of the present file.
func (l *logFile) lastLine() string {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return ""
	}
	text := strings.TrimRight(string(b), "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
