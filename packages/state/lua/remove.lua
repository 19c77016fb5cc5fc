-- Delete an ended job with all that is kept of it.
local job, rejection = judge(id)
if not job then return rejection end
unlist(job)
call('DEL', job_key(id), events_key(id))
return ok(job)
