-- Store the result and end the job.
local job, rejection = judge(id, fence)
if not job then return rejection end
if result ~= 'null' then put('result', result) end
-- A large result stays in the hash: events are copied to every watcher.
local told = #result <= LIMITS.inlineResultBytes and ',"result":' .. result or ',"resultBytes":' .. int(#result)
finish(job, 'COMPLETED', last_progress(progress) .. told)
return ok(job)
