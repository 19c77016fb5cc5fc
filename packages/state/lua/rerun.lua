-- Queue an ended job again, with fresh budgets. Its history goes on.
local job, rejection = judge(args.id)
if not job then return rejection end
call('ZREM', key('state', job.state), job.id)
call('PERSIST', key('job', job.id))
call('PERSIST', key('jobs', job.id))
enter(job, 'QUEUED', nil, {
  'failures', '0', 'crashes', '0', 'error', '', 'cancel', '', 'endedAt', '', 'worker', '', 'fence', '',
})
push(job)
return ok(job)
