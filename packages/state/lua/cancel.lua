-- End a waiting job at once; ask the worker of a running one to stop (it hears at its next heartbeat).
local job, rejection = judge_steering(id, op)
if not job then return rejection end
if job.state == 'PROCESSING' then
  if has(job, 'x') then return repeated(job) end
  flag(job, 'x')
  enter(job, 'PROCESSING', '')
  store(job)
  call('SET', heartbeat_key(id), heartbeat_of(job), 'XX', 'KEEPTTL')
else
  flag(job, 'x')
  finish(job, 'CANCELLED', '')
end
return ok(job)
