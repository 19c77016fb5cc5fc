-- Keep the attempt alive. A lapsed heartbeat revives while its fence holds: Redis may have been down, not the worker.
local job, rejection = judge(id, fence)
if not job then return rejection end
local startedAt, leaseMs = run_of(job)
if may_have_heartbeat(startedAt, leaseMs) then
  arm(job, leaseMs)
  -- Resets the idle time that the reaper looks at.
  call('XCLAIM', PREFIX .. 'work:' .. queue_of(job), GROUP, job.worker, 0, job.place, 'JUSTID')
end
return ok(job, has(job, 'x') and 'cancel' or '')
