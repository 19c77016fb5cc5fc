-- Give a waiting job another time to run.
local job, rejection = judge(id)
if not job then return rejection end
local delay = wait_from(delayMs, runAt)
-- The reply of the same move got lost. (One by a delay comes anew: its time is later by now.)
if job.last == MOVE and (delay > 0 and job.place == int(NOW + delay) or delay == 0 and job.state == 'QUEUED') then
  return repeated(job)
end
wait(job, delay, '')
return ok(job)
