-- Store the error and end the job.
local job, rejection = judge(id, fence)
if not job then return rejection end
spend_budget(job, 1, 0)
finish(job, 'FAILED', last_progress(progress) .. failed(job, failure))
return ok(job)
