-- Keep attempts of a worker process alive; `attempts` has "<id> <fence> <leaseMs>" of each. Answers which of them, counted
-- from 1, has to hear something: that it is `lost`, that a `cancel` was requested, that its job is broken (`error`).
local function beaten(id, fence, leaseMs)
  local owner, flags = match(call('HGET', job_key(id), 'now') or '', '^PROCESSING %S+ %l+ (%S+) %d+ (%S+)')
  if owner ~= fence then return 'lost' end
  -- PEXPIRE needs no memory, SET does. A lapsed heartbeat revives: Redis may have been down, not the worker.
  if call('PEXPIRE', heartbeat_key(id), leaseMs) == 0 and may_have_heartbeat(run_of(read(id))) then
    call('SET', heartbeat_key(id), fence .. ' ' .. worker, 'PX', leaseMs)
  end
  return find(flags, 'x', 1, true) and 'cancel'
end
local answer, number = { 'ok' }, 0
for id, fence, leaseMs in gmatch(attempts, '(%S+) (%S+) (%d+)') do
  number = number + 1
  local fine, told = pcall(beaten, id, fence, leaseMs)
  if told then
    answer[#answer + 1] = int(number)
    answer[#answer + 1] = fine and told or 'error'
  end
end
-- The reaper looks at what is in the hands of workers that were silent for long. To read nothing is to be heard.
for _, queue in ipairs({ name .. ':high', name, name .. ':low' }) do
  local work = PREFIX .. 'work:' .. queue
  if call('XLEN', work) > 0 then
    redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', 1, 'STREAMS', work, '9999999999999999-0')
  end
end
return answer
