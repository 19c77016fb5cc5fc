-- Store the error and end the job.
local job, rejection = judge(id, fence)
if not job then return rejection end
local set = { 'error', failure, 'failures', int((tonumber(job.failures) or 0) + 1) }
finish(job, 'FAILED', last_progress(progress, set) .. ',"error":' .. failure, set)
return ok(job)
