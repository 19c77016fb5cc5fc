-- Delete an ended job with all that is kept of it.
local job, rejection = judge(id)
if not job then return rejection end
unlist(job)
tell_tags(job, job.state, '-')
call('DEL', job.key, job.events)
return ok(job)
