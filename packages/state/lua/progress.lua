-- Replace the attempt's progress. `op` counts the attempt's reports, so a repeated one is told from a new one.
local job, rejection = judge_report(id, fence)
if not job then return rejection end
if tonumber(op) <= tonumber(job.op) then return repeated(job) end
job.op = op
put('progress', progress)
report(job, 'progress ' .. job.attempt .. ' ' .. progress)
return ok(job)
