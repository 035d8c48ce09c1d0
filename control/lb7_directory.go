package control

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Directory is how one directory does: the look-up of back ends for hosts, and
// the HAProxy map that it fills.
type Directory struct {
	Name string `json:"name"`
	// State is starting; serving; stale while the directory service is away and
	// known hosts are served on; unkept while HAProxy's map cannot be written.
	State string `json:"state"`
	// Problems are what somebody should look at.
	Problems []string `json:"problems,omitempty"`
	Map      string   `json:"map"`
	Listen   string   `json:"listen"`
	// Hosts are known, of at most Max; InMap of them as far as HAProxy was
	// told; Stale of them are older than ttl. Unknown are remembered for being
	// unknown.
	Hosts   int `json:"hosts"`
	Max     int `json:"max_entries"`
	InMap   int `json:"in_map"`
	Stale   int `json:"stale"`
	Unknown int `json:"unknown"`
	// Asking is how many hosts wait for an answer now; Open, how many requests
	// pass through lb7d.
	Asking int `json:"asking"`
	Open   int `json:"open"`
	// Oldest is when the oldest answer was given, AnsweredAt the latest, BulkAt
	// the latest list of all hosts.
	Oldest     time.Time `json:"oldest,omitzero"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	BulkAt     time.Time `json:"bulk_at,omitzero"`
	// Wrong is the latest answer that was not taken, and why.
	Wrong   string    `json:"wrong,omitempty"`
	WrongAt time.Time `json:"wrong_at,omitzero"`

	Counters DirectoryCounters `json:"counters"`
}

// DirectoryCounters count since the directory was last configured.
type DirectoryCounters struct {
	// Misses are requests whose host was not in HAProxy's map; Known, those of
	// them whose host lb7d knew; Shared, those that waited for a call that was
	// open; Refused, those whose Host header is no name; Shed, those that were
	// too many at once; ForwardFailed, those that HAProxy did not take back.
	Misses        uint64 `json:"misses"`
	Known         uint64 `json:"known"`
	Shared        uint64 `json:"shared"`
	Refused       uint64 `json:"refused"`
	Shed          uint64 `json:"shed"`
	ForwardFailed uint64 `json:"forward_failed"`
	// Answered, Unknown, Wrong and Failed are answers of the directory service
	// by what became of them; Busy, the calls that were not made because there
	// were too many; Refreshes, those made ahead of time.
	Answered  uint64 `json:"answered"`
	Unknown   uint64 `json:"unknown"`
	Wrong     uint64 `json:"wrong"`
	Failed    uint64 `json:"failed"`
	Busy      uint64 `json:"busy"`
	Refreshes uint64 `json:"refreshes"`
	// Bulk and BulkFailed are the calls for the list of all hosts.
	Bulk       uint64 `json:"bulk"`
	BulkFailed uint64 `json:"bulk_failed"`
	// Evicted hosts made room for others, Expired ones were no longer used.
	Evicted uint64 `json:"evicted"`
	Expired uint64 `json:"expired"`
	// Written are lines of HAProxy's map that were changed, Compared how often
	// it was read in full, Mended the lines found wrong then.
	Written    uint64 `json:"written"`
	Compared   uint64 `json:"compared"`
	Mended     uint64 `json:"mended"`
	FileWrites uint64 `json:"file_writes"`
	// Calls are how many calls for one host were made, Seconds how long all of
	// them took, and Buckets how many took at most each number of seconds.
	Calls   uint64            `json:"calls"`
	Seconds float64           `json:"calls_seconds"`
	Buckets []DirectoryBucket `json:"calls_buckets"`
}

// DirectoryBucket is how many calls took at most so many seconds.
type DirectoryBucket struct {
	Seconds float64 `json:"le"`
	Count   uint64  `json:"count"`
}

// DirectoryRequest names a host and, where there are several directories, one
// of them. It is the body of POST /v1/directory/lookup and of POST
// /v1/directory/forget.
type DirectoryRequest struct {
	Directory string `json:"directory,omitempty"`
	Host      string `json:"host"`
}

// DirectoryAnswer tells where a host is.
type DirectoryAnswer struct {
	Directory string `json:"directory"`
	Host      string `json:"host"`
	// Backend is empty where there is none, for the reason in Error.
	Backend string `json:"backend,omitempty"`
	Error   string `json:"error,omitempty"`
	// Source is directory, bulk, or map for an answer found at the start.
	Source string `json:"source,omitempty"`
	// Cached tells that it was known before the question; Stale, that it is
	// older than ttl.
	Cached  bool      `json:"cached"`
	Stale   bool      `json:"stale"`
	Asked   time.Time `json:"asked,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero"`
}

// DirectoryForgotten tells what was forgotten.
type DirectoryForgotten struct {
	Directory string `json:"directory"`
	Host      string `json:"host"`
	// Known is false where there was nothing to forget.
	Known bool `json:"known"`
	// Error is why HAProxy's map may still have the host.
	Error string `json:"error,omitempty"`
}

func directoryRoutes(mux *http.ServeMux, r *LB7Requests) {
	mux.HandleFunc("POST /v1/directory/lookup", serveQuestion(r.DirectoryLookup))
	mux.HandleFunc("POST /v1/directory/forget", serveQuestion(r.DirectoryForget))
}

// DirectoryLookup asks lb7d where a host is.
func (c *Client) DirectoryLookup(ctx context.Context, r DirectoryRequest) (*DirectoryAnswer, error) {
	return question[DirectoryAnswer](ctx, c, "/v1/directory/lookup", r)
}

// DirectoryForget has lb7d forget a host.
func (c *Client) DirectoryForget(ctx context.Context, r DirectoryRequest) (*DirectoryForgotten, error) {
	return question[DirectoryForgotten](ctx, c, "/v1/directory/forget", r)
}

var directoryStates = []string{"starting", "serving", "stale", "unkept"}

var (
	directoryState    = lb7Gauge("directory_state", "1 for the state that the directory is in: starting, serving, stale while the directory service is away, or unkept while HAProxy's map cannot be written.", "directory", "state")
	directoryProblems = lb7Gauge("directory_problems", "What somebody should look at, in the words of lbctl directory show.", "directory")
	directoryHosts    = lb7Gauge("directory_hosts", "Hosts whose back end is known.", "directory")
	directoryMax      = lb7Gauge("directory_max_entries", "The most hosts that the map may have.", "directory")
	directoryInMap    = lb7Gauge("directory_map_entries", "Lines of HAProxy's map.", "directory")
	directoryStale    = lb7Gauge("directory_stale_hosts", "Hosts whose answer is older than ttl.", "directory")
	directoryUnknown  = lb7Gauge("directory_unknown_hosts", "Hosts remembered for being unknown to the directory service.", "directory")
	directoryAge      = lb7Gauge("directory_oldest_age_seconds", "How old the oldest answer is.", "directory")
	directoryAnswered = lb7Gauge("directory_last_answer_timestamp_seconds", "When the directory service last gave an answer.", "directory")
	directoryBulkAt   = lb7Gauge("directory_last_bulk_timestamp_seconds", "When the list of all hosts was last read to its end.", "directory")
	directoryAsking   = lb7Gauge("directory_hosts_being_asked", "Hosts that wait for an answer of the directory service.", "directory")
	directoryOpen     = lb7Gauge("directory_requests_open", "Requests that pass through lb7d.", "directory")

	directoryMisses  = lb7Counter("directory_misses_total", "Requests whose host was not in HAProxy's map. Hits do not come here: they are HAProxy's requests less these.", "directory")
	directoryLate    = lb7Counter("directory_misses_known_total", "Misses whose host lb7d knew: requests on the way while its line was written, or a HAProxy whose map was not complete.", "directory")
	directoryShared  = lb7Counter("directory_misses_shared_total", "Misses that waited for a call that another one had opened.", "directory")
	directoryRefused = lb7Counter("directory_misses_refused_total", "Misses whose Host header is no host's name.", "directory")
	directoryShed    = lb7Counter("directory_misses_shed_total", "Misses answered 503 because max_requests were passing through.", "directory")
	directoryForward = lb7Counter("directory_forward_failures_total", "Requests that HAProxy's frontend for misses did not take back.", "directory")
	directoryResults = lb7Counter("directory_answers_total", "Answers of the directory service: answered, unknown, wrong, failed (none came) or busy (not asked, for too many waited).", "directory", "result")
	directoryAhead   = lb7Counter("directory_refreshes_total", "Calls made ahead of time, for hosts that are known.", "directory")
	directoryBulk    = lb7Counter("directory_bulk_total", "Calls for the list of all hosts.", "directory")
	directoryBulkBad = lb7Counter("directory_bulk_failed_total", "Calls for the list of all hosts that did not come to its end.", "directory")
	directoryGone    = lb7Counter("directory_removed_total", "Hosts let go: evicted to make room, or expired because nobody used them.", "directory", "reason")
	directoryWritten = lb7Counter("directory_map_changes_total", "Lines of HAProxy's map that were changed.", "directory")
	directoryRead    = lb7Counter("directory_map_compared_total", "Full readings of HAProxy's map.", "directory")
	directoryMended  = lb7Counter("directory_map_mended_total", "Lines of HAProxy's map found wrong or missing.", "directory")
	directoryFiles   = lb7Counter("directory_file_writes_total", "Times that the map's file was written.", "directory")

	directoryCalls = lb7Histogram("directory_call_duration_seconds", "How long calls for one host took, whatever came of them.", "directory")
)

// lb7Histogram describes a histogram.
func lb7Histogram(name, help string, labels ...string) family {
	return newLB7Family(prometheus.UntypedValue, name, help, labels)
}

func (e emitter) directory(d *Directory, now time.Time) {
	c := &d.Counters
	e.oneHot(directoryState, directoryStates, d.State, d.Name)
	for _, g := range []struct {
		family family
		value  int
	}{
		{directoryProblems, len(d.Problems)}, {directoryHosts, d.Hosts}, {directoryMax, d.Max}, {directoryInMap, d.InMap},
		{directoryStale, d.Stale}, {directoryUnknown, d.Unknown}, {directoryAsking, d.Asking}, {directoryOpen, d.Open},
	} {
		e.put(g.family, float64(g.value), d.Name)
	}
	if !d.Oldest.IsZero() {
		e.put(directoryAge, max(0, now.Sub(d.Oldest).Seconds()), d.Name)
	}
	e.time(directoryAnswered, d.AnsweredAt, d.Name)
	e.time(directoryBulkAt, d.BulkAt, d.Name)
	for _, g := range []struct {
		family family
		value  uint64
	}{
		{directoryMisses, c.Misses}, {directoryLate, c.Known}, {directoryShared, c.Shared}, {directoryRefused, c.Refused},
		{directoryShed, c.Shed}, {directoryForward, c.ForwardFailed}, {directoryAhead, c.Refreshes},
		{directoryBulk, c.Bulk}, {directoryBulkBad, c.BulkFailed}, {directoryWritten, c.Written},
		{directoryRead, c.Compared}, {directoryMended, c.Mended}, {directoryFiles, c.FileWrites},
	} {
		e.put(g.family, float64(g.value), d.Name)
	}
	for _, r := range []struct {
		result string
		value  uint64
	}{{"answered", c.Answered}, {"unknown", c.Unknown}, {"wrong", c.Wrong}, {"failed", c.Failed}, {"busy", c.Busy}} {
		e.put(directoryResults, float64(r.value), d.Name, r.result)
	}
	e.put(directoryGone, float64(c.Evicted), d.Name, "evicted")
	e.put(directoryGone, float64(c.Expired), d.Name, "expired")
	buckets := map[float64]uint64{}
	for _, b := range c.Buckets {
		buckets[b.Seconds] = b.Count
	}
	m, err := prometheus.NewConstHistogram(directoryCalls.desc, c.Calls, c.Seconds, buckets, label(d.Name))
	if err != nil {
		m = prometheus.NewInvalidMetric(directoryCalls.desc, err)
	}
	e.ch <- m
}
