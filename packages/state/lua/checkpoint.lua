-- Keep data that the next attempt receives.
local job, rejection = judge_by_now(id, fence)
if not job then return rejection end
flag(job, 'k')
call('HSET', job.key, 'checkpoint', data, 'now', now_of(job))
return ok(job)
