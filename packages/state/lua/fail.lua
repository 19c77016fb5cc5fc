-- Store the error and end the job.
local job, rejection = judge(args.id)
if not job then return rejection end
finish(job, 'FAILED', ',"error":' .. payload, { 'error', payload, 'failures', int(tonumber(job.failures) + 1) })
return ok(job)
