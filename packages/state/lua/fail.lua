-- Store the error and end the job.
local job, rejection = judge(id, fence)
if not job then return rejection end
local set = {}
job.failures = int(job.failures + 1)
finish(job, 'FAILED', last_progress(progress, set) .. failed(job, failure, set), set)
return ok(job)
