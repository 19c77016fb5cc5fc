-- Give a waiting job another time to run.
local job, rejection = judge(id)
if not job then return rejection end
wait(job, wait_from(delayMs, runAt), '')
return ok(job)
