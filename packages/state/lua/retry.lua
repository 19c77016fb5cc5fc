-- The attempt failed and has a successor. Whether it has, and when, is the worker's policy; the fence makes it safe.
local job, rejection = judge(id, fence)
if not job then return rejection end
spend_budget(job, 1, 0)
again(job, tonumber(delayMs), last_progress(progress) .. failed(job, failure))
return ok(job)
