-- Append a log line to the stream; the hash keeps only its position.
local job, rejection = judge(args.id)
if not job then return rejection end
if args.op <= tonumber(job.op) then return repeated(job) end
commit(job, '"type":"log","attempt":' .. job.attempt .. ',"line":' .. payload, { 'op', int(args.op) }, true)
return ok(job)
