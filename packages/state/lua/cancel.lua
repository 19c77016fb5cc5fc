-- End a waiting job at once; ask the worker of a running one to stop (it hears at its next heartbeat).
local job, rejection = judge(args.id)
if not job then return rejection end
if job.state == 'PROCESSING' then
  if present(job.cancel) then return repeated(job) end
  enter(job, 'PROCESSING', nil, { 'cancel', '1' })
  return ok(job)
end
call('ZREM', args.prefix .. 'scheduled', job.id)
finish(job, 'CANCELLED', nil, { 'cancel', '1' })
return ok(job)
