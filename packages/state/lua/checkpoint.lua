-- Keep data that the next attempt receives.
local job, rejection = judge(id, fence)
if not job then return rejection end
call('HSET', job_key(id), 'checkpoint', data)
return ok(job)
