-- Shared by every script: judge (reads only), then commit (writes hash, stream and channel together).
-- Redis does not roll a script back, so nothing is written before the ruling.
-- ARGV[1] is the partition's key prefix, ARGV[2] the publishing command; KEYS only route and authorise: the other keys
-- are derived from the prefix, in the same slot. Arguments are strings and the caller's JSON is never decoded, so that
-- no number and no [] changes.

local call = redis.call
local match, find = string.match, string.find
local PREFIX, PUBLISH = ARGV[1], ARGV[2]

-- Redis' clock is the only clock, in milliseconds. Integers are formatted by hand: Lua prints 1e14 as "1e+14".
local function int(n) return string.format('%.0f', n) end
local time = call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local AT = int(NOW)

local function text(s) return cjson.encode(s) end
local function present(value) return value and value ~= '' end

local GROUP = 'workers'
local SCHEDULED, DEADLINES, ENDED = PREFIX .. 'scheduled', PREFIX .. 'deadlines', PREFIX .. 'ended'
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

-- What changes with every event is one field of the hash, `now`: state, cursor, last move, attempt, fence, number of the
-- last report, place (entry in the list it stands in, or the time it is due), flags, failures, crashes. Read and written
-- as one it costs a fifth of ten fields. Flags: x cancel requested, k checkpoint kept, e error kept; - for none.
local NOW_PATTERN = '^(%u+) ((%d+)%-%d+) (%l+) (%d+) (%S+) (%d+) (%S+) (%S+) (%d+) (%d+)$'
local NO_OPTIONS = {}

local function job_of(id, now, name, options, run)
  if not now then return nil end
  local job = { id = id, name = name, options = options and cjson.decode(options) or NO_OPTIONS, run = run or '' }
  job.state, job.cursor, job.seq, job.last, job.attempt, job.fence, job.op, job.place, job.flags, job.failures, job.crashes =
    match(now, NOW_PATTERN)
  return job
end

-- The job as the move finds it, or nil when there is none.
local function read(id)
  local v = call('HMGET', job_key(id), 'now', 'name', 'options', 'run')
  return job_of(id, v[1], v[2], v[3], v[4])
end

local function has(job, flag) return find(job.flags, flag, 1, true) ~= nil end
local function flag(job, given)
  if not has(job, given) then job.flags = job.flags == '-' and given or job.flags .. given end
end
local function unflag(job, given)
  local left = string.gsub(job.flags, given, '')
  job.flags = left == '' and '-' or left
end

-- Worker, start and lease of the attempt; after its end only the start is kept.
local function run_of(job)
  local startedAt, leaseMs, worker = match(job.run, '^(%d+) (%d+) (.+)$')
  return worker or '', tonumber(startedAt or '0'), tonumber(leaseMs or DEFAULTS.leaseMs)
end

-- Until a quarter of its lease has passed an attempt needs no heartbeat key: short jobs never have one.
local function may_have_heartbeat(startedAt, leaseMs)
  return NOW - startedAt >= leaseMs / 4 or NOW < startedAt
end

-- Rules on the move. Returns the job, or nil and the answer to give.
local function judge(id, fence)
  local job = read(id)
  if not job then return nil, rejected('unknown_job') end
  local owner = not FENCED or job.fence == fence
  if not find(FROM, job.state, 1, true) then
    -- The reply of the same move got lost: answer as the first time. (A claim knows its repeat by the nonce.)
    if job.last == MOVE and owner and MOVE ~= 'claim' then return nil, repeated(job) end
    return nil, rejected(FENCED and not owner and 'fenced' or 'illegal', job.state)
  end
  if not owner then return nil, rejected('fenced', job.state) end
  return job
end

-- One event into the job's stream. It comes before every other write, since it alone can refuse. `event` is
-- "<kind> <attempt><more>", as events.ts reads it.
local function append(job, event)
  local seq = job.seq + 1
  local cursor = int(seq) .. '-' .. AT
  call('XADD', events_key(job.id), cursor, 'e', event)
  job.seq, job.cursor, job.event = seq, cursor, event
end

local function now_of(job)
  return table.concat({
    job.state, job.cursor, job.last, job.attempt, job.fence, job.op, job.place, job.flags, job.failures, job.crashes,
  }, ' ')
end

-- The hash as the event left it (`set`: fields and values), and the event to whoever listens.
local function store(job, set)
  local n = #set
  set[n + 1], set[n + 2] = 'now', now_of(job)
  call('HSET', job_key(job.id), unpack(set))
  call(PUBLISH, events_key(job.id), job.cursor .. ' ' .. job.event)
end

-- A report of the running attempt. Only so many are kept: the oldest give way, a hundred at a time, state changes never.
local function report(job, event, set)
  append(job, event)
  store(job, set)
  if job.seq <= LIMITS.reportsKept + 100 or job.seq % 100 ~= 0 then return end
  local events = events_key(job.id)
  local first = tonumber(call('HGET', job_key(job.id), 'reportsFrom') or '') or 1
  local beyond = job.seq - LIMITS.reportsKept
  local stale = {}
  for _, entry in ipairs(call('XRANGE', events, int(first) .. '-0', '(' .. int(beyond) .. '-0')) do
    if not find(entry[2][2], '^%l+>') then stale[#stale + 1] = entry[1] end
  end
  if #stale > 0 then call('XDEL', events, unpack(stale)) end
  call('HSET', job_key(job.id), 'reportsFrom', int(beyond))
end

-- A change of state: `enter` tells it, `store` keeps it. `more` is further JSON members of the event.
local function enter(job, state, more)
  job.state, job.last = state, MOVE
  append(job, MOVE .. '>' .. state .. ' ' .. job.attempt .. more)
end

local function queue_of(job)
  return job.options.priority and job.name .. ':' .. job.options.priority or job.name
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
  local entry = call('XADD', work, '*', 'id', id)
  -- In a cluster no read can wait at the streams of several partitions: idle workers are told of the first job that waits.
  if PUBLISH == 'SPUBLISH' and call('XLEN', work) - call('XINFO', 'GROUPS', work)[1][6] == 1 then
    call(PUBLISH, work, '')
  end
  return entry
end

-- Entries that are done with go at the end of the script, together: each call looks for a stream's first entry anew.
local done = {}
local function drop(work, entry)
  local entries = done[work]
  if not entries then
    entries = {}
    done[work] = entries
  end
  entries[#entries + 1] = entry
end
local function drop_done()
  for work, entries in pairs(done) do
    call('XACK', work, GROUP, unpack(entries))
    call('XDEL', work, unpack(entries))
  end
  done = {}
end

-- Takes the job out of the list it stands in, waiting or running, and out of its worker's hands.
local function pull(job, from)
  local options = job.options
  if from == 'SCHEDULED' then
    call('ZREM', SCHEDULED, job.id)
  else
    drop(PREFIX .. 'work:' .. queue_of(job), job.place)
  end
  if from == 'PROCESSING' then
    local _, startedAt, leaseMs = run_of(job)
    if may_have_heartbeat(startedAt, leaseMs) then call('DEL', heartbeat_key(job.id)) end
    job.run = int(startedAt)
    if options.timeoutMs then call('ZREM', DEADLINES, job.id) end
  end
end

-- What an ended job leaves lives as long as the job itself does.
local function outlive(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, int(ms)) end
end

-- Ends the job: out of the work, listed under its state until the retention has passed, and gone by itself then.
-- Jobs of one state and retention end in the order they expire, so a stream lists them, at a third of a sorted set's bytes.
local function finish(job, state, more, set)
  local from, options = job.state, job.options
  local retention = options.retentionMs or DEFAULTS.retentionMs
  local lifetime = int(retention)
  local ended = ENDED .. ':' .. state .. ':' .. lifetime
  enter(job, state, more)
  pull(job, from)
  if from ~= 'PROCESSING' and options.ttlMs then call('ZREM', DEADLINES, job.id) end
  job.place = call('XADD', ended, 'MINID', '~', int(math.max(0, NOW - retention)), '*', 'id', job.id)
  local key = job_key(job.id)
  -- A finished job has no error, and none needs a checkpoint.
  if has(job, 'k') then call('HDEL', key, 'checkpoint') end
  if state == 'COMPLETED' and has(job, 'e') then
    call('HDEL', key, 'error')
    unflag(job, 'e')
  end
  local n = #set
  if job.run ~= '' then set[n + 1], set[n + 2] = 'run', job.run end
  unflag(job, 'k')
  store(job, set)
  call('PEXPIRE', key, lifetime)
  call('PEXPIRE', events_key(job.id), lifetime)
  if not known[ended] then
    call('PEXPIRE', ended, lifetime)
    call('ZREMRANGEBYSCORE', ENDED, '-inf', AT)
    call('ZADD', ENDED, int(NOW + retention), state .. ':' .. lifetime)
    outlive(ENDED, retention)
    known[ended] = true
  end
  for tag in string.gmatch(options.tags or '', '%S+') do
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
  if delayMs > 0 then
    local due = int(NOW + delayMs)
    enter(job, 'SCHEDULED', ',"runAt":' .. due .. more)
    pull(job, from)
    call('ZADD', SCHEDULED, due, job.id)
    job.place = due
  else
    enter(job, 'QUEUED', more)
    pull(job, from)
    job.place = push(queue_of(job), job.id)
  end
  if from == 'PROCESSING' then
    local n = #set
    set[n + 1], set[n + 2] = 'run', job.run
  end
  store(job, set)
end

-- Back to the queue from a worker; or, when a cancel was asked for meanwhile, to its end.
local function again(job, delayMs, more, set)
  if has(job, 'x') then return finish(job, 'CANCELLED', more, set) end
  wait(job, delayMs, more, set)
end

-- The last progress of an attempt goes with the change of state that ends it: one event instead of two.
local function last_progress(progress, set)
  if not present(progress) then return '' end
  local n = #set
  set[n + 1], set[n + 2] = 'progress', progress
  return ',"progress":' .. progress
end

-- Keeps the error that ended an attempt or the job.
local function failed(job, failure, set)
  local n = #set
  set[n + 1], set[n + 2] = 'error', failure
  flag(job, 'e')
  return ',"error":' .. failure
end

local function wait_from(delayMs, runAt)
  if present(runAt) then return math.max(0, tonumber(runAt) - NOW) end
  return tonumber(delayMs)
end

-- Whether a job that waits for its first attempt has waited longer than it was worth.
local function is_over(job, createdAt)
  local ttlMs = job.options.ttlMs
  return ttlMs and job.attempt == '0' and tonumber(createdAt) + ttlMs <= NOW
end

local function expire(job)
  MOVE = 'expire'
  local set = {}
  local failure = '{"name":"Expired","code":"EXPIRED","message":"Nobody took the job within its time to live."}'
  finish(job, 'FAILED', failed(job, failure, set), set)
end

-- Takes an ended job out of the lists of ended ones.
local function unlist(job)
  local retention = job.options.retentionMs or DEFAULTS.retentionMs
  call('XDEL', ENDED .. ':' .. job.state .. ':' .. int(retention), job.place)
  for tag in string.gmatch(job.options.tags or '', '%S+') do call('ZREM', tag_key(tag) .. ':ended', job.id) end
end
