-- Give a waiting job another time to run.
local job, rejection = judge_steering(id, op)
if not job then return rejection end
local delay = wait_from(delayMs, runAt)
-- To the same time again changes nothing: a job that is to run now keeps its place.
if job.last == MOVE and (delay > 0 and job.place == int(NOW + delay) or delay == 0 and job.state == 'QUEUED') then
  return repeated(job)
end
wait(job, delay, '')
return ok(job)
