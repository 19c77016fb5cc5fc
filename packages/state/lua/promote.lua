-- Queue the scheduled jobs whose time has come, a bounded number a call. With `skip`, a number, nothing is written: it
-- tells those after so many.
-- Answers when the next one is due ('' for none), then of each that was due: id, and milliseconds that it is late.
local answer = { '' }

local function queue(id)
  local job = judge(id)
  if job then
    wait(job, 0, '')
    return true
  end
  call('ZREM', SCHEDULED, id)
end

local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', AT, 'WITHSCORES', 'LIMIT', present(skip) or '0', count)
for i = 1, #due, 2 do
  local id = due[i]
  local fine, queued = true, true
  if not present(skip) then
    -- One broken job must not hold up the others.
    fine, queued = pcall(queue, id)
    if not fine then call('ZREM', SCHEDULED, id) end
  end
  if fine and queued then
    answer[#answer + 1] = id
    answer[#answer + 1] = int(NOW - tonumber(due[i + 1]))
  end
end
local next = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')
answer[1] = next[2] and int(math.max(0, tonumber(next[2]) - NOW)) or ''
return answer
