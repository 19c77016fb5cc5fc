-- The attempt failed and has a successor. Whether it has, and when, is the worker's policy; the fence makes it safe.
local job, rejection = judge(id, fence)
if not job then return rejection end
local set = { 'error', failure, 'failures', int((tonumber(job.failures) or 0) + 1) }
again(job, tonumber(delayMs), last_progress(progress, set) .. ',"error":' .. failure, set)
return ok(job)
