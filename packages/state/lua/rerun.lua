-- Queue an ended job again, with fresh budgets. Its history goes on.
local job, rejection = judge(id)
if not job then return rejection end
unlist(job)
enter(job, 'QUEUED', '')
call('PERSIST', job_key(id))
call('PERSIST', events_key(id))
local createdAt = call('HGET', job_key(id), 'createdAt')
for tag in string.gmatch(job.tags, '%S+') do call('ZADD', tag_key(tag), createdAt, id) end
-- The fence stays: what the old attempt still sends is told from an unknown one, and refused.
settle(job, {
  'failures', '0', 'crashes', '0', 'error', '', 'result', '', 'cancel', '', 'entry', push(queue_of(job), id),
})
return ok(job)
