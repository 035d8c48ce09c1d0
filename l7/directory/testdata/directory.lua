-- The way that lb7d takes the place of, to be measured against: a Lua action
-- that asks the directory for each request and notes the answer in a map.
--
-- It is the published sketch with as little changed as makes it run: straight
-- quotes; an HTTP version, a Host and an empty line in the request, without
-- which no server of today answers; and the head of the answer taken off.
-- PORT is the directory's, MAP the map's file.

function get_backend(txn)
	local host = txn.http:req_get_headers()["host"][0]
	local sock = core.tcp()
	sock:settimeout(30)
	sock:connect("127.0.0.1", PORT)
	sock:send("GET /rest/" .. host .. " HTTP/1.0\r\nHost: directory\r\n\r\n")
	local result = sock:receive("*a")
	sock:close()
	if result then
		core.set_map("MAP", host, result:match("\r\n\r\n(.*)$"))
	end
end

core.register_action("get_backend", { "http-req" }, get_backend)
