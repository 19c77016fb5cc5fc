-- Shared by every transition: judge (reads only), then commit (writes hash, stream and channel together).
-- Redis does not roll a script back, so nothing is written before the ruling.
-- The generator puts MOVE (this move's row of the table) and LIMITS above.
-- ARGV[1]: our own named arguments as JSON; ARGV[2]: the caller's bytes, never decoded, so that no number or [] changes.
-- KEYS[1] routes and authorises; the other keys of the job are derived from the prefix, in the same slot.

local call = redis.call
local args = cjson.decode(ARGV[1])
local payload = ARGV[2]

-- Redis' clock is the only clock, in milliseconds. Integers are formatted by hand: Lua prints 1e14 as "1e+14".
local function int(n) return string.format('%.0f', n) end
local time = call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function text(s) return cjson.encode(s) end
local function present(value) return value and value ~= '' end

local GROUP = 'workers'
local FIELDS = {
  'name', 'state', 'attempt', 'fence', 'cursor', 'entry', 'cancel', 'op', 'last', 'failures', 'crashes',
  'maxCrashes', 'leaseMs', 'retentionMs', 'worker',
}

local function key(kind, id) return args.prefix .. kind .. ':' .. id end

-- Answers are flat arrays of strings: TypeScript parses them in one place.
local function rejected(reason, state) return { 'rejected', reason, state or '' } end
local function repeated(job) return { 'ok', job.cursor, job.state, 'repeat' } end

-- The job as the move finds it, or nil when there is none.
local function read(id)
  local values = call('HMGET', key('job', id), unpack(FIELDS))
  if not values[2] then return nil end
  local job = { id = id }
  for i, field in ipairs(FIELDS) do job[field] = values[i] or '' end
  job.seq = tonumber(string.match(job.cursor, '^(%d+)-'))
  return job
end

-- Rules on the move. Returns the job, or nil and the answer to give.
local function judge(id)
  local job = read(id)
  if not job then return nil, rejected('unknown_job') end
  local owner = not MOVE.fenced or job.fence == args.fence
  if not MOVE.from[job.state] then
    -- The reply of the same move got lost: answer as the first time. (A claim knows its repeat by the nonce.)
    if job.last == MOVE.name and owner and MOVE.name ~= 'claim' then return nil, repeated(job) end
    return nil, rejected(MOVE.fenced and not owner and 'fenced' or 'illegal', job.state)
  end
  if not owner then return nil, rejected('fenced', job.state) end
  return job
end

-- One event: into the stream, then the hash, then to whoever listens. `body` is what the event says beyond seq and at;
-- `fields` are hash fields to set. XADD comes first, since it alone can refuse.
local function commit(job, body, fields, trim)
  local seq = int((job.seq or 0) + 1)
  local cursor = seq .. '-' .. int(NOW)
  local event = '{"seq":' .. seq .. ',"at":' .. int(NOW) .. ',' .. body .. '}'
  local events = key('jobs', job.id)
  if trim then
    call('XADD', events, 'MAXLEN', '~', LIMITS.eventsKept, cursor, 'e', event)
  else
    call('XADD', events, cursor, 'e', event)
  end
  call('HSET', key('job', job.id), 'cursor', cursor, unpack(fields))
  call('PUBLISH', events, event)
  job.cursor = cursor
  return cursor
end

-- A change of state: commit, and the fields every such change sets. `more` is further JSON for the event.
local function enter(job, state, more, fields)
  job.state = state
  local set = { 'state', state, 'last', MOVE.name }
  for _, value in ipairs(fields or {}) do set[#set + 1] = value end
  return commit(
    job,
    '"type":"state","move":"' .. MOVE.name .. '","state":"' .. state .. '","attempt":' .. job.attempt .. (more or ''),
    set
  )
end

local function ok(job, ...) return { 'ok', job.cursor, job.state, ... } end

-- Puts the job's id into its work stream; a first job of that name creates stream and group.
local function push(job)
  local work = key('work', job.name)
  if call('SADD', args.prefix .. 'names', job.name) == 1 or call('EXISTS', work) == 0 then
    redis.pcall('XGROUP', 'CREATE', work, GROUP, '0', 'MKSTREAM')
  end
  job.entry = call('XADD', work, '*', 'id', job.id)
  call('HSET', key('job', job.id), 'entry', job.entry)
end

-- Takes the job out of its work stream and out of its worker's hands.
local function pull(job)
  local work = key('work', job.name)
  if present(job.entry) then
    call('XACK', work, GROUP, job.entry)
    call('XDEL', work, job.entry)
  end
  call('DEL', key('heartbeat', job.id))
end

-- Ends the job: out of the work, listed under its state until the retention has passed, and gone by itself then.
local function finish(job, state, more, fields)
  local retention = tonumber(job.retentionMs)
  local set = { 'endedAt', int(NOW), 'entry', '', 'runAt', '' }
  for _, value in ipairs(fields or {}) do set[#set + 1] = value end
  enter(job, state, more, set)
  pull(job)
  call('PEXPIRE', key('job', job.id), int(retention))
  call('PEXPIRE', key('jobs', job.id), int(retention))
  local index = key('state', state)
  call('ZREMRANGEBYSCORE', index, '-inf', int(NOW))
  call('ZADD', index, int(NOW + retention), job.id)
  if call('PTTL', index) < retention then call('PEXPIRE', index, int(retention)) end
end

-- Back to the queue, at once or at a time to come; or, when a cancel was asked for meanwhile, to its end.
local function again(job, delayMs, more, fields)
  if present(job.cancel) then return finish(job, 'CANCELLED', more, fields) end
  local set = { 'runAt', '' }
  local state = 'QUEUED'
  if delayMs > 0 then
    state = 'SCHEDULED'
    set[2] = int(NOW + delayMs)
    more = (more or '') .. ',"runAt":' .. set[2]
  end
  for _, value in ipairs(fields or {}) do set[#set + 1] = value end
  enter(job, state, more, set)
  pull(job)
  if state == 'SCHEDULED' then
    call('HSET', key('job', job.id), 'entry', '')
    call('ZADD', args.prefix .. 'scheduled', int(NOW + delayMs), job.id)
  else
    push(job)
  end
end
