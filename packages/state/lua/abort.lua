-- End a job whose cancel was requested, once its handler has stopped.
local job, rejection = judge(args.id)
if not job then return rejection end
if not present(job.cancel) then return rejected('no_cancel_requested', job.state) end
finish(job, 'CANCELLED')
return ok(job)
