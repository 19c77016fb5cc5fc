-- Queue an ended job again, with fresh budgets. Its history goes on.
local job, rejection = judge_steering(id, op)
if not job then return rejection end
unlist(job)
local from = job.state
enter(job, 'QUEUED', '')
call('PERSIST', job.key)
call('PERSIST', job.events)
local createdAt = call('HGET', job.key, 'createdAt')
for tag in gmatch(job.options.tags or '', '%S+') do call('ZADD', tag_key(tag), createdAt, id) end
call('HDEL', job.key, 'error', 'result')
-- The fence stays: what the old attempt still sends is told from an unknown one, and refused.
local flags, _, _, rest = match(job.rest, REST_PATTERN)
job.rest = ' ' .. flags .. ' 0 0' .. rest
unflag(job, 'x')
unflag(job, 'e')
put('place', push(queue_of(job), id))
store(job)
tell_tags(job, from, 'QUEUED')
return ok(job)
