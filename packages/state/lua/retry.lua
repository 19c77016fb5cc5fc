-- The attempt failed and has a successor. Whether it has, and when, is the worker's policy; the fence makes it safe.
local job, rejection = judge(args.id)
if not job then return rejection end
again(job, args.delayMs, ',"error":' .. payload, { 'error', payload, 'failures', int(tonumber(job.failures) + 1) })
return ok(job)
