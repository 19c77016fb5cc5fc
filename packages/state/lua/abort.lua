-- End a job whose cancel was requested, once its handler has stopped.
local job, rejection = judge(id, fence)
if not job then return rejection end
if not has(job, 'x') then return rejected('no_cancel_requested', job.state) end
finish(job, 'CANCELLED', last_progress(progress))
return ok(job)
