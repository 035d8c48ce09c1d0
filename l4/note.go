package l4

// The kernel keeps, for each destination, the last weight that was not 0 and
// gives it slots in the Maglev table by that (ip_vs_ctl.c,
// __ip_vs_update_dest: last_weight). It does not tell it: of a destination
// that is listed at weight 0, nobody can say which slots it has, or whether it
// has any, for one that was added at weight 0 has none.
//
// So whoever sets a weight to 0 leaves a note in the destination itself, where
// a later process finds it: connection limits. The lower one is the weight by
// which it has slots; the upper one marks the note, and is so large that it
// never takes effect. An edit with ipvsadm removes them, and ipvsadm -S, which
// saves a table, leaves them out: what another hand touched or restored is
// unknown again. "ipvsadm -L --thresholds" shows them. (The attributes of
// tunnels, which the kernel would keep as well, are no place for a note:
// ipvsadm crashes on flags that it does not know.)

// noteMark is the upper limit that marks a note.
const noteMark = 1 << 30

// note is the upper and the lower limit of a destination of weight 0 that has
// slots for a weight.
func note(weight int) (upper, lower uint32) {
	if weight == UnknownWeight {
		return 0, 0
	}
	return noteMark, uint32(weight)
}

// readNote reads the weight out of limits; ok tells whether they are a note.
func readNote(upper, lower uint32) (weight int, ok bool) {
	if upper != noteMark {
		return UnknownWeight, false
	}
	return int(lower), true
}
