-- Queue an ended job again, with fresh budgets. Its history goes on.
local job, rejection = judge(id)
if not job then return rejection end
unlist(job)
enter(job, 'QUEUED', '')
local key = job_key(id)
call('PERSIST', key)
call('PERSIST', events_key(id))
local createdAt = call('HGET', key, 'createdAt')
for tag in string.gmatch(job.options.tags or '', '%S+') do call('ZADD', tag_key(tag), createdAt, id) end
call('HDEL', key, 'error', 'result')
-- The fence stays: what the old attempt still sends is told from an unknown one, and refused.
job.failures, job.crashes = '0', '0'
unflag(job, 'x')
unflag(job, 'e')
job.place = push(queue_of(job), id)
store(job, {})
return ok(job)
