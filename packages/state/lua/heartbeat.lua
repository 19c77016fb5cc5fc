-- Keep the attempt alive. A lapsed heartbeat revives while its fence holds: Redis may have been down, not the worker.
local job, rejection = judge(args.id)
if not job then return rejection end
local heartbeat = key('heartbeat', job.id)
-- PEXPIRE needs no memory, SET does.
if call('PEXPIRE', heartbeat, job.leaseMs) == 0 then
  call('SET', heartbeat, job.fence .. ' ' .. job.worker, 'PX', job.leaseMs)
end
-- Resets the idle time that the reaper looks at.
call('XCLAIM', key('work', job.name), GROUP, job.worker, 0, job.entry, 'JUSTID')
return ok(job, present(job.cancel) and 'cancel' or '')
