-- Queue the scheduled jobs whose time has come, a bounded number a call.
-- Answers how many it queued, and when the next one is due ('' for none).
local scheduled = args.prefix .. 'scheduled'
local promoted = 0

local function queue(id)
  local job = judge(id)
  if job then
    enter(job, 'QUEUED', nil, { 'runAt', '' })
    push(job)
    promoted = promoted + 1
  end
  call('ZREM', scheduled, id)
end

-- One broken job must not hold up the others.
for _, id in ipairs(call('ZRANGEBYSCORE', scheduled, '-inf', int(NOW), 'LIMIT', 0, args.count)) do pcall(queue, id) end
local next = call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
return { int(promoted), next[2] and int(math.max(0, tonumber(next[2]) - NOW)) or '' }
