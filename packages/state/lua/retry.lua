-- The attempt failed and has a successor. Whether it has, and when, is the worker's policy; the fence makes it safe.
local job, rejection = judge(id, fence)
if not job then return rejection end
local set = {}
job.failures = int(job.failures + 1)
again(job, tonumber(delayMs), last_progress(progress, set) .. failed(job, failure, set), set)
return ok(job)
