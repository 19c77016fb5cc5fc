-- End a waiting job at once; ask the worker of a running one to stop (it hears at its next heartbeat).
local job, rejection = judge(id)
if not job then return rejection end
if job.state == 'PROCESSING' then
  if present(job.cancel) then return repeated(job) end
  enter(job, 'PROCESSING', '')
  settle(job, { 'cancel', '1' })
else
  finish(job, 'CANCELLED', '', { 'cancel', '1' })
end
return ok(job)
