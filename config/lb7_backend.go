package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBackends bounds the back ends of one HAProxy.
	maxBackends = 256
	// maxSlots and maxServerWeight are those of package l7/slots.
	maxSlots           = 4096
	maxServerWeight    = 256
	defaultSlotWeight  = 1
	defaultMaxShrink   = 50
	defaultShrinkAfter = 5 * time.Minute
	defaultSlotRest    = time.Minute
	// maxGroups bounds the groups of one back end.
	maxGroups = 256
)

// backends validates [backend.NAME].
func (c *checker) backends(raw *rawLB7, store StoreKind) []Backend {
	entries := raw.backends.entries
	if len(entries) > maxBackends {
		c.fault(raw.backends.place, "there are %d back ends; write at most %d", len(entries), maxBackends)
		return nil
	}
	known := map[string]*rawBackend{}
	for _, r := range entries {
		known[r.name] = r
	}
	var all []Backend
	tables := map[string]string{} // whose record is in a table
	files := map[string]string{}  // whose servers are in a file
	for _, r := range entries {
		if !r.ok {
			continue
		}
		b := Backend{Name: r.name, Prefix: r.prefix.value}
		if strings.Trim(b.Prefix, letters+digits+"._:-") != "" || len(b.Prefix) > maxName || r.prefix.ok && b.Prefix == "" {
			c.fault(r.prefix.place, `%s cannot begin a server's name in HAProxy; write 1 to %d letters, digits, and . _ : -, such as "s"`, quote(b.Prefix), maxName)
		}
		if r.slotsOf.present {
			c.sharer(r, &b, known)
		} else {
			c.owner(r, &b, store, raw.store.dynamodb.value, tables)
		}
		c.share(r, &b, entries)
		c.include(r, &b, files)
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Backend) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// sharer validates what a back end has that shares another's record.
func (c *checker) sharer(r *rawBackend, b *Backend, known map[string]*rawBackend) {
	c.misplaced("beside slots_of, whose back end has it", r.slots.given, r.source.given, r.weight.given, r.ramp.given,
		r.maxShrink.given, r.shrinkAfter.given, r.slotRest.given, r.dynamodb.given)
	if !r.slotsOf.ok {
		return
	}
	b.SlotsOf = r.slotsOf.value
	switch of := known[b.SlotsOf]; {
	case b.SlotsOf == r.name:
		c.fault(r.slotsOf.place, "names the back end itself; write the name of another, or leave the key out")
	case of == nil:
		var names []string
		for name := range known {
			if name != r.name {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		c.fault(r.slotsOf.place, "there is no [backend.%s]; those that there are besides: %s", head(b.SlotsOf, maxName), list(names, "and"))
	case of.slotsOf.present:
		c.fault(r.slotsOf.place, "[backend.%s] shares the slots of another itself; write that one's name", b.SlotsOf)
	}
}

// owner validates what a back end has that has a record of its own.
func (c *checker) owner(r *rawBackend, b *Backend, store StoreKind, table string, tables map[string]string) {
	if !r.slots.present {
		c.fault(r.child("slots"), "is missing; write how many servers the back end has room for, such as slots = 10")
	}
	b.Slots = int(c.integer(r.slots, 1, 1, maxSlots))
	if !r.source.present {
		c.fault(r.child("source"), `is missing; write where the servers come from, such as source = { file = "/etc/lb/servers.json" }`)
	}
	if r.source.ok {
		b.Source = c.serverSource(&r.source)
	}
	b.Weight = int(c.integer(r.weight, defaultSlotWeight, 0, maxServerWeight))
	if r.ramp.ok {
		c.ramp(r, b)
	}
	b.MaxShrink = defaultMaxShrink
	if r.maxShrink.ok {
		b.MaxShrink = c.percent(r.maxShrink, defaultMaxShrink)
	}
	b.ShrinkAfter = c.duration(r.shrinkAfter, defaultShrinkAfter, 0, 24*time.Hour)
	b.SlotRest = c.duration(r.slotRest, defaultSlotRest, 0, 24*time.Hour)

	if store != StoreDynamoDB {
		c.misplaced("unless the store is dynamodb", r.dynamodb.given)
		return
	}
	at := r.dynamodb.place
	if b.Table = table; r.dynamodb.present {
		b.Table = c.tableName(r.dynamodb)
	} else {
		at = r.child("dynamodb")
	}
	if other := tables[b.Table]; other != "" {
		c.fault(at, "table %s has the record of [backend.%s] already, and a table has one; write dynamodb = with another table", quote(b.Table), other)
	}
	tables[b.Table] = b.Name
}

// ramp validates [backend.NAME.ramp].
func (c *checker) ramp(r *rawBackend, b *Backend) {
	t := &r.ramp
	if r.weight.present && t.to.present {
		c.fault(t.to.place, "says the same as weight in line %d; leave one of them out", r.weight.line)
	}
	if t.to.present {
		b.Weight = int(c.integer(t.to, defaultSlotWeight, 1, maxServerWeight))
	}
	b.Ramp = Ramp{
		From:  int(c.integer(t.from, 1, 0, maxServerWeight)),
		Step:  int(c.integer(t.step, 1, 1, maxServerWeight)),
		Every: c.duration(t.every, 30*time.Second, 100*time.Millisecond, 24*time.Hour),
	}
	if t.from.ok && b.Ramp.From > b.Weight {
		c.fault(t.from.place, "%d is more than the full weight of %d; write less, or a greater to =", b.Ramp.From, b.Weight)
	}
}

// percent is a share such as "50%".
func (c *checker) percent(t text, fallback int) int {
	digits, ok := strings.CutSuffix(t.value, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil || n < 1 || n > 100 || digits[0] == '0' {
		c.fault(t.place, `%s is not a percentage; write "1%%" to "100%%"`, quote(t.value))
		return fallback
	}
	return int(n)
}

// share validates which servers of the record a back end takes.
func (c *checker) share(r *rawBackend, b *Backend, entries []*rawBackend) {
	if r.groups.ok && len(r.groups.values) == 0 {
		c.fault(r.groups.place, "the list is empty; write the groups whose servers the back end takes, or leave the key out for all")
	}
	if len(r.groups.values) > maxGroups {
		c.fault(r.groups.place, "there are %d groups; write at most %d", len(r.groups.values), maxGroups)
		return
	}
	for _, g := range r.groups.values {
		name := c.word(g, "the name of a group")
		if slices.Contains(b.Groups, name) {
			c.fault(g.place, "%s is in the list twice; leave one of them out", quote(name))
		}
		b.Groups = append(b.Groups, name)
	}
	b.Fallback, b.All = r.fallback.value, r.all.value
	switch {
	case b.Fallback && r.groups.present:
		c.fault(r.fallback.place, "a fallback takes what the groups of others leave, and this one has groups in line %d; leave one of them out", r.groups.line)
	case b.All && !b.Fallback:
		c.fault(r.all.place, "has no meaning without fallback = true; leave the key out, since a back end without groups takes every server")
	case b.Fallback && !b.All && !slices.ContainsFunc(entries, func(o *rawBackend) bool {
		return o != r && o.record() == r.record() && o.groups.present
	}):
		c.fault(r.fallback.place, "no other back end of the same slots has groups, so there is nothing to leave; leave the key out, or write groups = for the dedicated one")
	}
}

// record is the name of the back end whose slots it has.
func (r *rawBackend) record() string {
	if r.slotsOf.ok {
		return r.slotsOf.value
	}
	return r.name
}

// include validates [backend.NAME.include].
func (c *checker) include(r *rawBackend, b *Backend, files map[string]string) {
	t := &r.include
	if !t.ok {
		return
	}
	if !t.file.present {
		c.fault(t.child("file"), `is missing; write the path of the file, such as file = "/etc/haproxy/conf.d/50-servers.cfg"`)
	}
	i := &Include{
		File:    c.filePath(t.file, "", maxPath),
		Head:    "backend " + r.name,
		Options: "check",
	}
	if other := files[i.File]; other != "" && i.File != "" {
		c.fault(t.file.place, "%s is the file of [backend.%s] too; write another", quotePath(i.File), other)
	}
	files[i.File] = r.name
	if t.head.ok {
		if i.Head = t.head.value; !strings.HasPrefix(i.Head, "backend "+r.name) && !strings.HasPrefix(i.Head, "listen "+r.name) {
			c.fault(t.head.place, "%s does not open the back end; write a line such as %q", quote(i.Head), "backend "+r.name+" from "+r.name+"-defaults")
		}
	}
	if t.options.ok {
		i.Options = t.options.value
	}
	for _, one := range []text{t.head, t.options} {
		if one.ok && (hasControl(one.value) || len(one.value) > 1024) {
			c.fault(one.place, "holds a control character or more than 1024 bytes; write it on one line")
		}
	}
	if !r.prefix.present {
		c.fault(r.child("prefix"), "is missing, and the include file needs the beginning of the servers' names; write prefix = \"s\"")
	}
	b.Include = i
}
