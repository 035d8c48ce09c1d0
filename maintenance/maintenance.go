// Package maintenance observes the maintenance file: while it exists, the host
// wants no traffic. It is seen through a watch on its directory and, in case
// an event is lost or the directory does not exist yet, by polling.
package maintenance

import "time"

// State is what is known of the maintenance file.
type State struct {
	// Path is the file that is watched.
	Path string
	// Present tells that the file exists. An error other than "does not
	// exist" counts as present, because the safe side is to take no traffic
	// only where somebody asked for it and cannot be heard; Err tells why.
	Present bool
	// Since is when the present state was first seen by this process.
	Since time.Time
	// Reason is the first line of the file, cut to 200 bytes and stripped of
	// control characters; empty for a bare touch.
	Reason string
	// Err is why the file could not be examined, or nil.
	Err error
}
