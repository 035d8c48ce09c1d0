package control

// serverStates are HAProxy's administrative states.
var serverStates = []string{"ready", "drain", "maint"}

var (
	lb7BuildInfo  = lb7Gauge("build_info", "The version of lb7d that runs; always 1.", "version")
	lb7State      = lb7Gauge("state", "1 for the state that lb7d is in: starting until each part has been at work, running, or stopping.", "state")
	lb7LastUpdate = lb7Gauge("last_update_timestamp_seconds", "When lb7d last gathered what its parts do. It grows old when lb7d is stuck.")
	lb7Errors     = lb7Gauge("errors", "What is not as it should be, in the words of lbctl status; each is tried again.")

	lb7Reloads       = lb7Counter("config_reloads_total", "Reloads that put a new configuration in force.")
	lb7ReloadsFailed = lb7Counter("config_reloads_failed_total", "Reloads that were refused; the configuration before them stayed in force.")
	lb7ReloadOK      = lb7Gauge("config_last_reload_successful", "0 if the last reload was refused, 1 otherwise.")
	lb7ReloadTime    = lb7Gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.")

	agentServing   = lb7Gauge("agent_check_serving", "1 while the agent check's answer takes new work.")
	agentAnswer    = lb7Gauge("agent_check_answer_info", "What the agent check answers, and where it is from: file, default, last good or nothing; always 1.", "answer", "source")
	agentFault     = lb7Gauge("agent_check_file_fault", "1 while the agent check's file is not understood, so that something else is answered.")
	agentQuestions = lb7Counter("agent_check_questions_total", "Agent checks that were answered.")
	agentFaults    = lb7Counter("agent_check_faults_total", "Agent checks that were answered with something else than the file, because it was not understood.")

	haproxyUp       = lb7Gauge("haproxy_up", "1 while HAProxy's Runtime API answers.")
	haproxySince    = lb7Gauge("haproxy_start_timestamp_seconds", "When the HAProxy process started.")
	haproxySessions = lb7Gauge("haproxy_sessions", "Sessions going on at HAProxy's frontends.")
	haproxyRestarts = lb7Counter("haproxy_restarts_total", "Reloads and restarts of HAProxy that were noticed.")

	recordVersion  = lb7Gauge("record_version", "The version of the slot record.", "record")
	recordStore    = lb7Gauge("record_store_error", "1 while the store cannot be read or written, so that the record may be out of date.", "record")
	recordLease    = lb7Gauge("record_lease_held", "1 while this host is the one that asks the source.", "record")
	recordSlots    = lb7Gauge("record_slots", "Slots of the record.", "record")
	recordUsed     = lb7Gauge("record_slots_used", "Slots that have a server.", "record")
	recordOverflow = lb7Gauge("record_overflow_servers", "Servers that get no traffic because every slot is taken. Only while the lease is held.", "record")
	recordWaiting  = lb7Gauge("record_waiting_servers", "Servers that wait until a slot has rested. Only while the lease is held.", "record")
	recordHeld     = lb7Gauge("record_list_held_back", "1 while a list that shrank too much is held back.", "record")

	sourceListed   = lb7Gauge("source_servers", "Servers of the source's last good list. Only while the lease is held.", "record")
	sourceAt       = lb7Gauge("source_last_list_timestamp_seconds", "When the source last gave or confirmed its list. Only while the lease is held.", "record")
	sourceAge      = lb7Gauge("source_age_seconds", "How old the source's last good list is. Only while the lease is held.", "record")
	sourceFailing  = lb7Gauge("source_failing", "1 while the source fails and its last good list stays in force.", "record")
	sourceFailures = lb7Counter("source_failures_total", "Attempts that gave no list.", "record")
	sourceRefused  = lb7Gauge("source_refused_entries", "Entries of the list that cannot be servers.", "record")

	backendError    = lb7Gauge("backend_error", "1 while HAProxy cannot be given the back end's servers.", "backend")
	backendProblems = lb7Gauge("backend_problems", "Slots that are not as wanted after the last attempt.", "backend")
	backendInclude  = lb7Gauge("backend_include_error", "1 while the include file is not what it should be.", "backend")
	backendApplied  = lb7Gauge("backend_last_applied_timestamp_seconds", "When HAProxy was last compared with what is wanted, and agreed or was changed.", "backend")
	backendDuration = lb7Gauge("backend_last_apply_duration_seconds", "How long that took.", "backend")
	backendSent     = lb7Counter("backend_commands_sent_total", "Commands sent to HAProxy. In steady state there are none.", "backend")
	backendFailed   = lb7Counter("backend_commands_failed_total", "Commands that HAProxy refused.", "backend")
	backendRepaired = lb7Counter("backend_drift_repaired_total", "Slots put right that somebody else had changed in HAProxy.", "backend")

	serverSlot   = lb7Gauge("server_slot", "The number of the server's slot.", "backend", "server")
	serverInfo   = lb7Gauge("server_info", "The server's address, group and zone; always 1.", "backend", "server", "address", "group", "zone")
	serverState  = lb7Gauge("server_state", "1 for the administrative state that the server has in HAProxy: ready, drain or maint.", "backend", "server", "state")
	serverWanted = lb7Gauge("server_wanted_state", "1 for the state that the server should have.", "backend", "server", "state")
	serverUp     = lb7Gauge("server_running", "1 while HAProxy counts the server as up.", "backend", "server")
	serverWeight = lb7Gauge("server_weight", "The server's weight in HAProxy.", "backend", "server")
	serverWants  = lb7Gauge("server_wanted_weight", "The weight that the server should have now.", "backend", "server")
	serverFull   = lb7Gauge("server_full_weight", "The weight that the server will have when its ramp has ended.", "backend", "server")
	serverPassed = lb7Gauge("server_first_pass_timestamp_seconds", "When the server's first passing check was seen.", "backend", "server")
)

// lb7 sends the metrics of lb7d.
func (e emitter) lb7(st *LB7Status) {
	e.put(lb7BuildInfo, 1, st.Version)
	e.oneHot(lb7State, daemonStates, st.State)
	e.time(lb7LastUpdate, st.Updated)
	e.put(lb7Errors, float64(len(st.Errors)))
	e.put(lb7Reloads, float64(st.Counters.Reloads))
	e.put(lb7ReloadsFailed, float64(st.Counters.ReloadsFailed))
	e.put(lb7ReloadOK, truth(st.Config.Error == ""))
	e.time(lb7ReloadTime, st.Config.Loaded)
	e.tunnel(st.Tunnel)
	if a := st.AgentCheck; a != nil {
		e.put(agentServing, truth(a.Serving))
		e.put(agentAnswer, 1, a.Answer, a.Source)
		e.put(agentFault, truth(a.Fault != ""))
		e.put(agentQuestions, float64(a.Questions))
		e.put(agentFaults, float64(a.Faults))
	}
	if h := st.HAProxy; h != nil {
		e.put(haproxyUp, truth(h.Running))
		e.time(haproxySince, h.Since)
		e.put(haproxySessions, float64(h.Sessions))
		e.put(haproxyRestarts, float64(h.Restarts))
	}
	for i := range st.Records {
		e.record(&st.Records[i], st)
	}
	for i := range st.Backends {
		e.backend(&st.Backends[i])
	}
	for i := range st.Directories {
		e.directory(&st.Directories[i], st.Updated)
	}
}

func (e emitter) record(r *Record, st *LB7Status) {
	e.put(recordVersion, float64(r.Version), r.Name)
	e.put(recordStore, truth(r.StoreError != ""), r.Name)
	e.put(recordLease, truth(r.Held), r.Name)
	e.put(recordSlots, float64(r.Slots), r.Name)
	e.put(recordUsed, float64(r.Used), r.Name)
	e.put(recordHeld, truth(r.HeldBack != nil), r.Name)
	if !r.Held {
		return // the one who asks the source tells of it
	}
	e.put(recordOverflow, float64(len(r.Overflow)), r.Name)
	e.put(recordWaiting, float64(len(r.Waiting)), r.Name)
	e.put(sourceListed, float64(r.Listed), r.Name)
	e.time(sourceAt, r.At, r.Name)
	if !r.At.IsZero() {
		e.put(sourceAge, max(0, st.Updated.Sub(r.At).Seconds()), r.Name)
	}
	e.put(sourceFailing, truth(r.SourceError != ""), r.Name)
	e.put(sourceFailures, float64(r.Failures), r.Name)
	e.put(sourceRefused, float64(r.RefusedTotal), r.Name)
}

func (e emitter) backend(b *Backend) {
	e.put(backendError, truth(b.Error != ""), b.Name)
	e.put(backendProblems, float64(len(b.Problems)), b.Name)
	e.put(backendInclude, truth(b.IncludeError != ""), b.Name)
	e.time(backendApplied, b.Applied, b.Name)
	e.put(backendDuration, seconds(b.LastMicros), b.Name)
	e.put(backendSent, float64(b.Sent), b.Name)
	e.put(backendFailed, float64(b.Failed), b.Name)
	e.put(backendRepaired, float64(b.Repaired), b.Name)
	for i := range b.Servers {
		s := &b.Servers[i]
		e.put(serverSlot, float64(s.Slot), b.Name, s.ID)
		e.put(serverInfo, 1, b.Name, s.ID, s.Address, s.Group, s.Zone)
		e.oneHot(serverWanted, []string{"ready", "drain"}, s.WantedState, b.Name, s.ID)
		e.put(serverWants, float64(s.WantedWeight), b.Name, s.ID)
		e.put(serverFull, float64(s.FullWeight), b.Name, s.ID)
		e.time(serverPassed, s.PassedAt, b.Name, s.ID)
		if s.State == "" {
			continue // HAProxy has not told
		}
		e.oneHot(serverState, serverStates, s.State, b.Name, s.ID)
		e.put(serverUp, truth(s.Running), b.Name, s.ID)
		e.put(serverWeight, float64(s.Weight), b.Name, s.ID)
	}
}
