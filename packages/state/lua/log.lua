-- Append a log line (a JSON string) to the stream; the hash keeps only its position.
local job, rejection = judge_report(id, fence)
if not job then return rejection end
if tonumber(op) <= tonumber(job.op) then return repeated(job) end
job.op = op
report(job, 'log ' .. job.attempt .. ' ' .. line)
return ok(job)
