-- Shared by every script: judge (reads only), then commit (writes hash, stream and channel together).
-- Redis does not roll a script back, so nothing is written before the ruling.
-- ARGV[1] is the partition's key prefix, ARGV[2] the publishing command; KEYS[1] only routes and authorises: the other
-- keys are derived from the prefix, in the same slot. Arguments are strings and the caller's JSON is never decoded, so
-- that no number and no [] changes.

local call = redis.call
local PREFIX, PUBLISH = ARGV[1], ARGV[2]

-- Redis' clock is the only clock, in milliseconds. Integers are formatted by hand: Lua prints 1e14 as "1e+14".
local function int(n) return string.format('%.0f', n) end
local time = call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local AT = int(NOW)

local function text(s) return cjson.encode(s) end
local function present(value) return value and value ~= '' end

local GROUP = 'workers'
-- The move under way, whether it carries a fence, and the states it is legal from: the generator sets them.
local MOVE, FENCED, FROM

local function job_key(id) return PREFIX .. 'job:' .. id end
local function events_key(id) return PREFIX .. 'jobs:' .. id end
local function heartbeat_key(id) return PREFIX .. 'heartbeat:' .. id end
local function tag_key(tag) return PREFIX .. 'tag:' .. tag end

-- Answers are flat arrays of strings: TypeScript parses them in one place.
local function rejected(reason, state) return { 'rejected', reason, state or '' } end
local function repeated(job) return { 'ok', job.cursor, job.state, 'repeat' } end
local function ok(job, ...) return { 'ok', job.cursor, job.state, ... } end

-- Fields that are not set read as ''. Those that only some moves need are loaded when one is looked at.
local HOT = { 'state', 'cursor', 'attempt', 'fence', 'last', 'op', 'cancel', 'name', 'entry' }
local COLD = {
  'priority', 'tags', 'retentionMs', 'deadline', 'worker', 'failures', 'crashes', 'maxCrashes', 'leaseMs', 'reportsFrom',
}
local cold = {
  __index = function(job, field)
    local values = call('HMGET', job_key(job.id), unpack(COLD))
    for i, name in ipairs(COLD) do rawset(job, name, values[i] or '') end
    return rawget(job, field)
  end,
}

-- The job as the move finds it, or nil when there is none.
local function read(id)
  local v = call('HMGET', job_key(id), unpack(HOT))
  if not v[1] then return nil end
  return setmetatable({
    id = id, state = v[1], cursor = v[2], attempt = v[3] or '0', fence = v[4] or '', last = v[5] or '', op = v[6] or '0',
    cancel = v[7] or '', name = v[8], entry = v[9] or '', seq = tonumber(string.match(v[2], '^(%d+)-')),
  }, cold)
end

-- Rules on the move. Returns the job, or nil and the answer to give.
local function judge(id, fence)
  local job = read(id)
  if not job then return nil, rejected('unknown_job') end
  local owner = not FENCED or job.fence == fence
  if not string.find(FROM, job.state, 1, true) then
    -- The reply of the same move got lost: answer as the first time. (A claim knows its repeat by the nonce.)
    if job.last == MOVE and owner and MOVE ~= 'claim' then return nil, repeated(job) end
    return nil, rejected(FENCED and not owner and 'fenced' or 'illegal', job.state)
  end
  if not owner then return nil, rejected('fenced', job.state) end
  return job
end

-- One event into the job's stream. It comes before every other write, since it alone can refuse. `event` is
-- "<kind> <attempt><more>", as schema/event.ts reads it.
local function append(job, event)
  local seq = job.seq + 1
  local cursor = int(seq) .. '-' .. AT
  call('XADD', events_key(job.id), cursor, 'e', event)
  job.seq, job.cursor, job.event = seq, cursor, event
end

-- The hash as the event left it (`set`: fields and values), and the event to whoever listens.
local function store(job, set)
  local n = #set
  set[n + 1], set[n + 2] = 'cursor', job.cursor
  call('HSET', job_key(job.id), unpack(set))
  call(PUBLISH, events_key(job.id), job.cursor .. ' ' .. job.event)
end

-- A report of the running attempt. Only so many are kept: the oldest give way, a hundred at a time, state changes never.
local function report(job, event, set)
  append(job, event)
  store(job, set)
  if job.seq <= LIMITS.reportsKept + 100 or job.seq % 100 ~= 0 then return end
  local events = events_key(job.id)
  local first = tonumber(job.reportsFrom) or 1
  local beyond = job.seq - LIMITS.reportsKept
  local stale = {}
  for _, entry in ipairs(call('XRANGE', events, first .. '-0', '(' .. int(beyond) .. '-0')) do
    if not string.find(entry[2][2], '^%l+>') then stale[#stale + 1] = entry[1] end
  end
  if #stale > 0 then call('XDEL', events, unpack(stale)) end
  call('HSET', job_key(job.id), 'reportsFrom', int(beyond))
end

-- A change of state: `enter` tells it, `settle` stores it. `more` is further JSON members of the event.
local function enter(job, state, more)
  job.state = state
  append(job, MOVE .. '>' .. state .. ' ' .. job.attempt .. more)
end

local function settle(job, set)
  local n = #set
  set[n + 1], set[n + 2], set[n + 3], set[n + 4] = 'state', job.state, 'last', MOVE
  store(job, set)
end

local function queue_of(job)
  return present(job.priority) and job.name .. ':' .. job.priority or job.name
end

-- Puts the job's id into its work stream and answers the entry; the first job of a queue creates stream and group.
local known = {}
local function push(queue, id)
  local work = PREFIX .. 'work:' .. queue
  if not known[queue] then
    if call('SADD', PREFIX .. 'queues', queue) == 1 or call('EXISTS', work) == 0 then
      redis.pcall('XGROUP', 'CREATE', work, GROUP, '0', 'MKSTREAM')
    end
    known[queue] = true
  end
  return call('XADD', work, '*', 'id', id)
end

-- Takes the job out of the list it stands in, waiting or running, and out of its worker's hands.
local function pull(job, from)
  if from == 'SCHEDULED' then
    call('ZREM', PREFIX .. 'scheduled', job.id)
  elseif present(job.entry) then
    local work = PREFIX .. 'work:' .. queue_of(job)
    call('XACK', work, GROUP, job.entry)
    call('XDEL', work, job.entry)
  end
  if from == 'PROCESSING' then
    call('DEL', heartbeat_key(job.id))
    if present(job.deadline) then call('ZREM', PREFIX .. 'deadlines', job.id) end
  end
end

-- What an ended job leaves lives as long as the job itself does.
local function outlive(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, int(ms)) end
end

-- Ends the job: out of the work, listed under its state until the retention has passed, and gone by itself then.
-- Jobs of one state and retention end in the order they expire, so a stream lists them, at a third of a sorted set's bytes.
local function finish(job, state, more, set)
  local from = job.state
  local retention = tonumber(job.retentionMs) or DEFAULTS.retentionMs
  local ended = PREFIX .. 'ended:' .. state .. ':' .. int(retention)
  enter(job, state, more)
  pull(job, from)
  -- Of a time to live in the queue.
  if from ~= 'PROCESSING' and present(job.deadline) then call('ZREM', PREFIX .. 'deadlines', job.id) end
  local n = #set
  set[n + 1] = 'entry'
  set[n + 2] = call('XADD', ended, 'MINID', '~', int(math.max(0, NOW - retention)), '*', 'id', job.id)
  settle(job, set)
  local key = job_key(job.id)
  -- A finished job has no error; a failed one has nothing of the others.
  local error_field = state == 'COMPLETED' and 'error' or 'op'
  call('HDEL', key, 'op', 'leaseMs', 'worker', 'runAt', 'checkpoint', 'deadline', 'expiresAt', error_field)
  call('PEXPIRE', key, int(retention))
  call('PEXPIRE', events_key(job.id), int(retention))
  if not known[ended] then
    call('PEXPIRE', ended, int(retention))
    call('ZREMRANGEBYSCORE', PREFIX .. 'ended', '-inf', AT)
    call('ZADD', PREFIX .. 'ended', int(NOW + retention), state .. ':' .. int(retention))
    outlive(PREFIX .. 'ended', retention)
    known[ended] = true
  end
  for tag in string.gmatch(job.tags, '%S+') do
    local kept = tag_key(tag) .. ':ended'
    call('ZREM', tag_key(tag), job.id)
    call('ZREMRANGEBYSCORE', kept, '-inf', AT)
    call('ZADD', kept, int(NOW + retention), job.id)
    outlive(kept, retention)
  end
end

-- To run at once (delayMs 0) or at a time to come.
local function wait(job, delayMs, more, set)
  local from = job.state
  local n = #set
  set[n + 1], set[n + 3] = 'runAt', 'entry'
  if delayMs > 0 then
    local runAt = int(NOW + delayMs)
    enter(job, 'SCHEDULED', ',"runAt":' .. runAt .. more)
    pull(job, from)
    call('ZADD', PREFIX .. 'scheduled', runAt, job.id)
    set[n + 2], set[n + 4] = runAt, ''
  else
    enter(job, 'QUEUED', more)
    pull(job, from)
    set[n + 2], set[n + 4] = '', push(queue_of(job), job.id)
  end
  settle(job, set)
end

-- Back to the queue from a worker; or, when a cancel was asked for meanwhile, to its end.
local function again(job, delayMs, more, set)
  if present(job.cancel) then return finish(job, 'CANCELLED', more, set) end
  wait(job, delayMs, more, set)
end

-- The last progress of an attempt goes with the change of state that ends it: one event instead of two.
local function last_progress(progress, set)
  if not present(progress) then return '' end
  set[#set + 1], set[#set + 2] = 'progress', progress
  return ',"progress":' .. progress
end

local function wait_from(delayMs, runAt)
  if present(runAt) then return math.max(0, tonumber(runAt) - NOW) end
  return tonumber(delayMs)
end

-- Ends a job that waited longer than it was worth.
local function expire(job)
  MOVE = 'expire'
  local failure = '{"name":"Expired","code":"EXPIRED","message":"Nobody took the job within its time to live."}'
  finish(job, 'FAILED', ',"error":' .. failure, { 'error', failure })
end

-- Takes an ended job out of the lists of ended ones.
local function unlist(job)
  local retention = tonumber(job.retentionMs) or DEFAULTS.retentionMs
  call('XDEL', PREFIX .. 'ended:' .. job.state .. ':' .. int(retention), job.entry)
  for tag in string.gmatch(job.tags, '%S+') do call('ZREM', tag_key(tag) .. ':ended', job.id) end
end
