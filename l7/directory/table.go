package directory

import (
	"cmp"
	"container/heap"
	"container/list"
	"math/rand/v2"
	"slices"
	"time"
)

// entry is one host whose back end is known.
type entry struct {
	host, backend string
	// asked is when the directory gave the answer; when lb7d found it, for one
	// that it took over from HAProxy's map or from the map's file.
	asked time.Time
	// due is when it is to be asked again, expires when the answer is old.
	due, expires time.Time
	// used is when the host was last seen to be asked for: by a miss, or in
	// HAProxy's table of used hosts.
	used time.Time
	// written is when its line was last known to be right in HAProxy's map;
	// zero: not yet.
	written time.Time
	// bulk tells that the answer came with all others; adopted, that nobody
	// gave it to this process.
	bulk, adopted bool

	place *list.Element // in table.order
	index int           // in table.queue
}

// table holds the known hosts. It decides who is asked again and who goes,
// and does nothing else: it has no clock, no lock and no network.
type table struct {
	ttl     time.Duration
	entries map[string]*entry
	order   *list.List // *entry, the most recently used in front
	queue   dueQueue   // *entry, the next due on top
}

func newTable(ttl time.Duration) *table {
	return &table{ttl: ttl, entries: map[string]*entry{}, order: list.New()}
}

// put notes an answer. It tells whether the host is new or has another back
// end than before.
func (t *table) put(host, backend string, now time.Time, bulk bool) (changed bool) {
	e := t.entries[host]
	if e == nil {
		e = &entry{host: host, used: now}
		e.place = t.order.PushFront(e)
		t.entries[host] = e
		heap.Push(&t.queue, e)
		changed = true
	}
	changed = changed || e.backend != backend
	e.backend, e.bulk, e.adopted = backend, bulk, false
	t.date(e, now, 0.75, 0.9)
	return changed
}

// adopt takes over an answer that was there before. When it was asked is not
// known, so it is asked again in the second half of its time; spread, so that
// a full map does not come due all at once.
func (t *table) adopt(host, backend string, now time.Time) {
	if t.entries[host] != nil {
		return
	}
	t.put(host, backend, now, false)
	e := t.entries[host]
	e.adopted = true
	t.date(e, now, 0.5, 0.9)
}

// date sets the times of an answer given now: due after a part of its life
// between from and to, drawn by lot so that what came together does not come
// due together.
func (t *table) date(e *entry, now time.Time, from, to float64) {
	e.asked, e.expires = now, now.Add(t.ttl)
	t.postpone(e, now.Add(time.Duration(float64(t.ttl)*(from+(to-from)*rand.Float64()))))
}

// postpone sets when an entry is asked again.
func (t *table) postpone(e *entry, due time.Time) {
	e.due = due
	heap.Fix(&t.queue, e.index)
}

// use notes that the host is asked for now.
func (t *table) use(e *entry, now time.Time) {
	e.used = now
	t.order.MoveToFront(e.place)
}

// noteUses notes when hosts were used, at times that may lie back, and returns
// all hosts with the times of their use, for reorder.
func (t *table) noteUses(at map[string]time.Time) []use {
	all := make([]use, 0, t.order.Len())
	for el := t.order.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entry)
		if u, ok := at[e.host]; ok && u.After(e.used) {
			e.used = u
		}
		all = append(all, use{e, e.used})
	}
	return all
}

// use is when a host was used.
type use struct {
	e  *entry
	at time.Time
}

// sortUses puts the latest in front. It needs no lock, and takes its time: 100
// ms for 100,000 hosts.
func sortUses(all []use) {
	slices.SortStableFunc(all, func(a, b use) int { return b.at.Compare(a.at) })
}

// reorder puts the hosts into this order, as far as they are still there.
func (t *table) reorder(all []use) {
	for _, u := range all {
		if t.entries[u.e.host] == u.e {
			t.order.MoveToBack(u.e.place)
		}
	}
}

// remove forgets a host, and tells whether it was known.
func (t *table) remove(host string) bool {
	e := t.entries[host]
	if e == nil {
		return false
	}
	delete(t.entries, host)
	t.order.Remove(e.place)
	heap.Remove(&t.queue, e.index)
	return true
}

// evict forgets the n hosts that were used least recently, and names them.
func (t *table) evict(n int) (hosts []string) {
	for range n {
		last := t.order.Back()
		if last == nil {
			break
		}
		e := last.Value.(*entry)
		t.remove(e.host)
		hosts = append(hosts, e.host)
	}
	return hosts
}

// takeDue names up to n entries that are due, and lets each of them come due
// again after again, so that one whose answer does not come is not forgotten.
func (t *table) takeDue(n int, now time.Time, again time.Duration) (due []*entry) {
	for len(due) < n && len(t.queue) > 0 && !t.queue[0].due.After(now) {
		e := t.queue[0]
		t.postpone(e, now.Add(again))
		due = append(due, e)
	}
	return due
}

// ages counts the answers that are older than they should be, and tells when
// the oldest of all was asked for.
func (t *table) ages(now time.Time) (stale int, oldest time.Time) {
	for _, e := range t.entries {
		if e.expires.Before(now) {
			stale++
		}
		if oldest.IsZero() || e.asked.Before(oldest) {
			oldest = e.asked
		}
	}
	return stale, oldest
}

// pairs lists the hosts and their back ends, in no order.
func (t *table) pairs() []pair {
	all := make([]pair, 0, len(t.entries))
	for host, e := range t.entries {
		all = append(all, pair{host, e.backend})
	}
	return all
}

// sortPairs puts lines into the order of their hosts. It needs no lock.
func sortPairs(all []pair) {
	slices.SortFunc(all, func(a, b pair) int { return cmp.Compare(a.host, b.host) })
}

// pair is a line of the map.
type pair struct{ host, backend string }

// dueQueue is a heap of entries by due; see container/heap.
type dueQueue []*entry

// Len, Less, Swap, Push and Pop are what container/heap asks for.
func (q dueQueue) Len() int { return len(q) }

// Less puts the entry that is due first on top.
func (q dueQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

// Swap keeps the places that entries know of themselves.
func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push appends an entry.
func (q *dueQueue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop takes the last entry off.
func (q *dueQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}

// memo remembers, of a bounded number of hosts and for a while each, why they
// have no answer. The oldest go first.
type memo struct {
	max   int
	hosts map[string]*list.Element // of *reason
	order *list.List               // the newest in front
}

type reason struct {
	host  string
	err   error
	until time.Time
}

func newMemo(most int) *memo {
	return &memo{max: most, hosts: map[string]*list.Element{}, order: list.New()}
}

// put notes the reason until a time.
func (m *memo) put(host string, err error, until time.Time) {
	m.remove(host)
	if m.order.Len() >= m.max {
		m.remove(m.order.Back().Value.(*reason).host)
	}
	m.hosts[host] = m.order.PushFront(&reason{host, err, until})
}

// get is the reason, or nil where none stands any more.
func (m *memo) get(host string, now time.Time) error {
	el := m.hosts[host]
	if el == nil {
		return nil
	}
	r := el.Value.(*reason)
	if !r.until.After(now) {
		m.remove(host)
		return nil
	}
	return r.err
}

func (m *memo) remove(host string) bool {
	el := m.hosts[host]
	if el != nil {
		m.order.Remove(el)
		delete(m.hosts, host)
	}
	return el != nil
}
