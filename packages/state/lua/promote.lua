-- Queue the scheduled jobs whose time has come, a bounded number a call.
-- Answers how many it queued, and when the next one is due ('' for none).
local scheduled = PREFIX .. 'scheduled'
local promoted = 0

local function queue(id)
  local job = judge(id)
  if job then
    wait(job, 0, '', {})
    promoted = promoted + 1
  else
    call('ZREM', scheduled, id)
  end
end

-- One broken job must not hold up the others.
for _, id in ipairs(call('ZRANGEBYSCORE', scheduled, '-inf', AT, 'LIMIT', 0, count)) do
  if not pcall(queue, id) then call('ZREM', scheduled, id) end
end
local next = call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
return { int(promoted), next[2] and int(math.max(0, tonumber(next[2]) - NOW)) or '' }
