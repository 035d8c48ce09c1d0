package runtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ShowTable hands the keys of a stick table to each, with the time after
// which HAProxy will forget the key if nobody uses it again. The keys of a
// table of type string are shown as they are, so each key is one word. An
// unknown table is ErrNotFound.
func (c *Client) ShowTable(ctx context.Context, table string, each func(key string, left time.Duration) error) error {
	if err := name("table", table); err != nil {
		return err
	}
	cmd, err := command(nil, "show", "table", table)
	if err != nil {
		return err
	}
	head := false
	err = c.list(ctx, cmd, func(line string) error {
		switch {
		case line == "":
			return nil
		case strings.HasPrefix(line, "# table:"):
			head = true
			return nil
		case !head:
			return cmd.refused(cutSeverity(line))
		}
		// "0x55f7f9c6a0d8: key=www.example.org use=0 exp=3599986 http_req_cnt=1"
		var key string
		left := time.Duration(-1)
		for field := range strings.FieldsSeq(line) {
			if v, ok := strings.CutPrefix(field, "key="); ok && key == "" {
				key = v
			} else if v, ok := strings.CutPrefix(field, "exp="); ok {
				ms, err := strconv.ParseInt(v, 10, 32)
				if err != nil {
					return fmt.Errorf("reading the reply to %q: %q is no time", cmd, clip(v))
				}
				left = time.Duration(ms) * time.Millisecond
			}
		}
		if key == "" || left < 0 {
			return nil // a key with spaces, or cut short: nobody's host
		}
		return each(key, left)
	})
	if err == nil && !head {
		err = cmd.refused(-1, "")
	}
	return err
}
