package main

import (
	"context"
	"fmt"
	"io"

	"lb4d/lb7"
)

// runTeardown removes what lb7d has left in place: 0, or 1 where something is
// left still.
func runTeardown(path string, stdout, stderr io.Writer) int {
	changes, err := lb7.Teardown(context.Background(), path)
	for _, c := range changes {
		fmt.Fprintln(stdout, c)
	}
	if err != nil {
		fmt.Fprintln(stderr, "lb7d:", err)
		return 1
	}
	if len(changes) == 0 {
		fmt.Fprintln(stdout, "nothing to remove")
	}
	return 0
}
