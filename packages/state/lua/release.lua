-- Hand the job back at a graceful stop. Costs neither a failure nor a crash.
local job, rejection = judge(args.id)
if not job then return rejection end
again(job, 0)
return ok(job)
