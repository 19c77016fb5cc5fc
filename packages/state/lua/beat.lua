-- Keep attempts of a worker process alive; `attempts` has "<id> <fence> <leaseMs>" of each. Answers which of them, counted
-- from 1, has to hear something: that it is `lost`, that a `cancel` was requested, that its job is broken (`error`).

-- What a worker that has lost its job has just prolonged lasts as before: until a lease after its owner was heard.
local function give_back(job, key)
  local leftMs = 1
  for _, consumer in ipairs(job and call('XINFO', 'CONSUMERS', PREFIX .. 'work:' .. queue_of(job), GROUP) or {}) do
    local _, leaseMs = run_of(job)
    if consumer[2] == job.worker then leftMs = math.max(1, leaseMs - consumer[6]) end
  end
  call('PEXPIRE', key, int(leftMs))
end
-- What is usual is one command, since ten thousand attempts are thousands of beats a second: a heartbeat that says just this
-- attempt and this worker is of an attempt that holds, and nobody asked it to stop. Anything else is looked at.
local function beaten(id, fence, leaseMs)
  local key = heartbeat_key(id)
  local kept = call('GETEX', key, 'PX', leaseMs)
  if kept == fence .. ' ' .. worker then return end
  local job = read(id)
  if not job or job.state ~= 'PROCESSING' or job.fence ~= fence then
    if kept then give_back(job, key) end
    return 'lost'
  end
  -- A lapsed heartbeat revives: Redis may have been down, not the worker.
  if may_have_heartbeat(run_of(job)) then arm(job, leaseMs) end
  return has(job, 'x') and 'cancel'
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
