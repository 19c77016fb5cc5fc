-- One step of a sweep over a work stream: looks at entries in workers' hands, and recovers those whose attempt is over.
-- Taking the entry and moving the job is one script, so a reaper that dies in between cannot exist.
-- Looked at is what those workers hold that were silent for minIdleMs, so a sweep costs by what is overdue; with `whole`,
-- the next entries of anybody, since an attempt may be given up by a worker that lives. With `dry` nothing is written.
-- Answers the next cursor ('0-0' at the end), whether this was an amnesty step, then for each entry that was not simply
-- alive: id, outcome, worker, milliseconds since it was heard ('' where it lives), and what people are told.
local sweep = PREFIX .. 'sweep'
local work = PREFIX .. 'work:' .. queue
-- The longest that a silence may be to count as one: twice the longest interval of a reaper.
local LONGEST_MS = 120000
local max_gap, min_idle, limit = tonumber(maxGapMs), tonumber(minIdleMs), tonumber(count)
local told_only = dry == '1'

-- Heartbeats run out while Redis is down, frozen or failing over, and the workers are well. So after any silence
-- longer than maxGapMs (or a clock that stepped back) a window is open in which lapsed heartbeats are only armed anew.
local seen = call('HMGET', sweep, 'at', 'amnestyUntil', 'silentMs', 'silentUntil')
local gap = seen[1] and NOW - tonumber(seen[1])
local amnestyUntil, quietMs, quietUntil = tonumber(seen[2] or '0'), tonumber(seen[3] or '0'), tonumber(seen[4] or '0')
if not gap or gap < 0 or gap > max_gap then amnestyUntil = NOW + max_gap end
-- Opened by another reaper, whose interval may be longer, but not by a mistake.
if amnestyUntil > NOW + math.max(max_gap, LONGEST_MS) then amnestyUntil = 0 end
-- A sweep that began in the window stays in it, however long it takes.
local forgiving = amnesty == '1' or NOW < amnestyUntil
-- A shorter silence is long for a job with a short lease: that one is forgiven for a lease. What is left of it, a last beat a
-- 3.5th before the silence, is for its worker to come back. A clock that stepped back forgives nothing by an old silence.
local shortest = tonumber(present(silenceMs) or math.huge)
local since = NOW - quietUntil
if gap and gap > shortest then
  -- The one before it counts on only where it still matters to the same leases.
  if since < 0 or since >= 2.5 * gap then quietMs = 0 end
  quietMs, quietUntil, since = math.max(quietMs, math.min(gap, max_gap)), NOW, 0
end
local function is_forgiven(leaseMs)
  return forgiving or quietMs > shortest and quietMs > 0.4 * leaseMs and since >= 0 and since < leaseMs
end
if not told_only then
  call('HSET', sweep, 'at', AT, 'amnestyUntil', int(amnestyUntil), 'silentMs', int(quietMs), 'silentUntil', int(quietUntil))
end

-- Where somebody destroyed the group nobody holds anything; the repair makes another.
local function held_by(...)
  local reply = redis.pcall(...)
  if not reply.err then return reply end
  return find(reply.err, 'NOGROUP', 1, true) and {} or error(reply)
end

-- A worker that has gone leaves its name in the group. One that holds nothing, and was given nothing for a hundred times
-- the idle time that sweeps look at, is forgotten: were it alive, the next job it is given would name it again. Only at one
-- sweep in sixty-four.
local function forget(name) call('XGROUP', 'DELCONSUMER', work, GROUP, name) end

-- Workers that hold something and are silent, by name: name and milliseconds.
local silent
local function silent_workers()
  if silent then return silent end
  silent = {}
  local forgetting = not told_only and cursor == '0-0' and tonumber(time[2]) % 64 == 0
  for _, consumer in ipairs(held_by('XINFO', 'CONSUMERS', work, GROUP)) do
    local name, pending, idle = consumer[2], consumer[4], consumer[6]
    if pending > 0 and idle >= min_idle then
      silent[#silent + 1] = { name, idle }
    elseif forgetting and pending == 0 and idle >= 100 * min_idle and name ~= 'reaper' then
      forget(name)
    end
  end
  table.sort(silent, function(a, b) return a[1] < b[1] end)
  return silent
end

-- Milliseconds that the worker of a name has been silent, or nil where it is heard. What stands under the reaper's name is
-- of workers whose name another process has.
local function silence_of(name)
  for _, worker in ipairs(name ~= 'reaper' and silent_workers() or {}) do
    if worker[1] == name then return worker[2] end
  end
end

-- `holder` has the entry in its hands. Answers id, outcome, worker, silence and sentence, or nothing.
local function recover(entry, holder)
  local found = call('XRANGE', work, entry, entry)[1]
  local id = found and found[2][2] or entry
  local job = found and read(id)
  if not job or job.place ~= entry then
    -- The job has ended, expired or been queued anew, or somebody deleted the entry: a leftover.
    if not told_only then drop(queue, entry) end
    return id, 'leftover'
  end
  if job.state == 'QUEUED' then
    -- Delivered, but its reader died before the claim (or its reply got lost): to be read again.
    if not told_only then
      drop(queue, entry)
      call('HSET', job_key(id), 'place', push(queue, id))
    end
    return id, 'redelivered'
  end
  local worker = job.worker
  local startedAt, leaseMs = run_of(job)
  if call('EXISTS', heartbeat_key(id)) == 1 then return end
  -- It started so lately that it need not have beaten yet. (A clock that stepped back makes it no younger.)
  if NOW >= startedAt and NOW - startedAt < leaseMs then return end
  if is_forgiven(leaseMs) and not told_only then
    arm(job, leaseMs)
    return id, 'rearmed', worker
  end
  spend_budget(job, 0, 1)
  local _, crashes = budgets(job)
  job.fence = job.attempt .. '-'
  local allowed = job.options.maxCrashes or DEFAULTS.maxCrashes
  local state, delayMs, says = fate(job, 'crash', crashes, allowed, job.options.crashBackoff)
  local silentMs = silence_of(holder)
  says = 'Worker ' .. worker
    .. (silentMs and ' is lost, last heard ' .. seconds(silentMs) .. ' ago' or ' lives and keeps the attempt alive no more')
    .. ' (lease ' .. seconds(leaseMs) .. '). ' .. says
  if not told_only then
    local lost = ',"reason":"worker_lost","worker":' .. text(worker) .. ',"message":' .. text(says)
    if state == 'FAILED' then
      local failure = '{"name":"WorkerLost","code":"CRASHED","message":'
        .. text('The worker died ' .. int(crashes) .. ' times under this job; the last was ' .. worker .. '.') .. '}'
      finish(job, 'FAILED', lost .. failed(job, failure))
    else
      again(job, delayMs, lost)
    end
  end
  return id, state, worker, silentMs and int(silentMs), says
end

local answer = { '0-0', forgiving and '1' or '0' }
local function look_at(entry, holder)
  -- One broken job must not stop the sweep for the others.
  local fine, id, outcome, worker, silent, says = pcall(recover, entry, holder)
  if not fine then id, outcome, worker = entry, 'error', type(id) == 'table' and id.err or tostring(id) end
  if not id then return end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = id, outcome, worker or ''
  answer[n + 4], answer[n + 5] = silent or '', says or ''
end

-- Entries that are looked at, up to the limit; answers where the next step goes on.
local function next_of(held, left)
  local last = held[left]
  return last and '(' .. last[1]
end

if call('EXISTS', work) == 0 then return answer end
if whole == '1' then
  local held = held_by('XPENDING', work, GROUP, cursor == '0-0' and '-' or cursor, '+', limit)
  for _, row in ipairs(held) do
    if row[3] >= min_idle then look_at(row[1], row[2]) end
  end
  answer[1] = next_of(held, limit) or '0-0'
else
  -- A cursor is the name of a worker and the entry of it to go on from.
  local from_name, from = match(cursor, '^(%S+) (%S+)$')
  local left = limit
  for _, worker in ipairs(silent_workers()) do
    local name = worker[1]
    if not from_name or name >= from_name then
      local held = call('XPENDING', work, GROUP, 'IDLE', minIdleMs, name == from_name and from or '-', '+', left, name)
      for _, row in ipairs(held) do look_at(row[1], name) end
      local on = next_of(held, left)
      if on then
        answer[1] = name .. ' ' .. on
        break
      end
      left = left - #held
    end
  end
end
drop_done()
return answer
