-- Hand the job back at a graceful stop. Costs neither a failure nor a crash.
local job, rejection = judge(id, fence)
if not job then return rejection end
again(job, 0, last_progress(progress))
return ok(job)
