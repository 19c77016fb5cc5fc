-- Queue the scheduled jobs whose time has come, a bounded number a call.
-- Answers how many it queued, and when the next one is due ('' for none).
local promoted = 0

local function queue(id)
  local job = judge(id)
  if job then
    wait(job, 0, '')
    promoted = promoted + 1
  else
    call('ZREM', SCHEDULED, id)
  end
end

-- One broken job must not hold up the others.
for _, id in ipairs(call('ZRANGEBYSCORE', SCHEDULED, '-inf', AT, 'LIMIT', 0, count)) do
  if not pcall(queue, id) then call('ZREM', SCHEDULED, id) end
end
local next = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')
return { int(promoted), next[2] and int(math.max(0, tonumber(next[2]) - NOW)) or '' }
