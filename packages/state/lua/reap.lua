-- One step of a sweep over a work stream: take idle entries, and recover those whose worker is gone.
-- Taking the entry and moving the job is one script, so a reaper that dies in between cannot exist.
-- Answers the next cursor ('0-0' at the end), whether this was an amnesty step, then id, outcome, worker for each
-- entry that was not simply alive.
local sweep = PREFIX .. 'sweep'
local work = PREFIX .. 'work:' .. queue
local max_gap = tonumber(maxGapMs)

-- Heartbeats run out while Redis is down, frozen or failing over, and the workers are well. So after any silence
-- longer than maxGapMs (or a clock that stepped back) a window is open in which lapsed heartbeats are only armed anew.
local seen = call('HMGET', sweep, 'at', 'amnestyUntil')
local gap = seen[1] and NOW - tonumber(seen[1])
local amnestyUntil = tonumber(seen[2] or '0')
if not gap or gap < 0 or gap > max_gap then amnestyUntil = NOW + max_gap end
if amnestyUntil > NOW + max_gap then amnestyUntil = 0 end
-- A sweep that began in the window stays in it, however long it takes.
local forgiving = amnesty == '1' or NOW < amnestyUntil
call('HSET', sweep, 'at', AT, 'amnestyUntil', int(amnestyUntil))

local function recover(id, entry)
  local job = read(id)
  if not job or job.place ~= entry then
    -- The job has ended, expired or been queued anew: the entry is a leftover.
    drop(queue, entry)
    return 'leftover', ''
  end
  if job.state == 'QUEUED' then
    -- Delivered, but its reader died before the claim (or its reply got lost): to be read again.
    drop(queue, entry)
    call('HSET', job_key(id), 'place', push(queue, id))
    return 'redelivered', ''
  end
  local worker = job.worker
  local startedAt, leaseMs = run_of(job)
  if call('EXISTS', heartbeat_key(id)) == 1 then return end
  -- It started so lately that it need not have beaten yet. (A clock that stepped back makes it no younger.)
  if NOW >= startedAt and NOW - startedAt < leaseMs then return end
  if forgiving then
    call('SET', heartbeat_key(id), job.fence .. ' ' .. worker, 'PX', int(leaseMs))
    return 'rearmed', worker
  end
  spend_budget(job, 0, 1)
  local _, crashes = budgets(job)
  job.fence = job.attempt .. '-'
  local lost = ',"reason":"worker_lost","worker":' .. text(worker)
  if has(job, 'x') or crashes <= (job.options.maxCrashes or DEFAULTS.maxCrashes) then
    again(job, 0, lost)
  else
    local failure = '{"name":"WorkerLost","code":"CRASHED","message":'
      .. text('The worker died ' .. int(crashes) .. ' times under this job; the last was ' .. worker .. '.') .. '}'
    finish(job, 'FAILED', lost .. failed(job, failure))
  end
  return job.state, worker
end

-- A worker that has gone leaves its name in the group. One that holds nothing, and was given nothing for a hundred times
-- the idle time that sweeps look at, is forgotten: were it alive, the next job it is given would name it again. All names
-- are looked at for it, so only at the end of one sweep in sixty-four.
local function forget_workers()
  for _, consumer in ipairs(call('XINFO', 'CONSUMERS', work, GROUP)) do
    local name, pending, idle = consumer[2], consumer[4], consumer[6]
    if pending == 0 and idle >= 100 * tonumber(minIdleMs) and name ~= 'reaper' then
      call('XGROUP', 'DELCONSUMER', work, GROUP, name)
    end
  end
end

if call('EXISTS', work) == 0 then return { '0-0', forgiving and '1' or '0' } end
local claimed = call('XAUTOCLAIM', work, GROUP, 'reaper', minIdleMs, cursor, 'COUNT', count)
local answer = { claimed[1], forgiving and '1' or '0' }
for _, entry in ipairs(claimed[2]) do
  local id = entry[2][2]
  -- One broken job must not stop the sweep for the others.
  local fine, outcome, worker = pcall(recover, id, entry[1])
  if not fine then
    outcome, worker = 'error', type(outcome) == 'table' and outcome.err or tostring(outcome)
  end
  if outcome then
    answer[#answer + 1] = id
    answer[#answer + 1] = outcome
    answer[#answer + 1] = worker
  end
end
drop_done()
if claimed[1] == '0-0' and tonumber(time[2]) % 64 == 0 then forget_workers() end
return answer
