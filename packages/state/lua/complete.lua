-- Store the result and end the job.
local job, rejection = judge(args.id)
if not job then return rejection end
-- A large result stays in the hash: events are copied to every watcher.
local told = #payload <= LIMITS.inlineResultBytes and ',"result":' .. payload or ',"resultBytes":' .. int(#payload)
finish(job, 'COMPLETED', told, { 'result', payload, 'error', '' })
return ok(job)
