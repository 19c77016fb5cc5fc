-- Keep the attempt alive. A lapsed heartbeat revives while its fence holds: Redis may have been down, not the worker.
local job, rejection = judge(id, fence)
if not job then return rejection end
local lease = present(job.leaseMs) and job.leaseMs or int(DEFAULTS.leaseMs)
-- PEXPIRE needs no memory, SET does.
if call('PEXPIRE', heartbeat_key(id), lease) == 0 then
  call('SET', heartbeat_key(id), job.fence .. ' ' .. job.worker, 'PX', lease)
end
-- Resets the idle time that the reaper looks at.
call('XCLAIM', PREFIX .. 'work:' .. queue_of(job), GROUP, job.worker, 0, job.entry, 'JUSTID')
return ok(job, present(job.cancel) and 'cancel' or '')
