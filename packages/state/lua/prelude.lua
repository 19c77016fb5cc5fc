-- Shared by every script: judge (reads only), then commit (writes hash, stream and channel together).
-- Redis does not roll a script back, so nothing is written before the ruling.
-- ARGV[1] is the partition's key prefix, ARGV[2] the publishing command; KEYS only route and authorise: the other keys
-- are derived from the prefix, in the same slot. Arguments are strings and the caller's JSON is never decoded, so that
-- no number and no [] changes.

local call = redis.call
local match, find, gsub, gmatch = string.match, string.find, string.gsub, string.gmatch
local PREFIX, PUBLISH = ARGV[1], ARGV[2]

-- Redis' clock is the only clock, in milliseconds. Integers are formatted by hand: Lua prints 1e14 as "1e+14".
local function int(n) return string.format('%d', n) end
local time = call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local AT = int(NOW)

local function text(s) return cjson.encode(s) end
-- The value, or nil for '' (an argument that was not given).
local function present(value)
  if value ~= '' then return value end
end

local GROUP = 'workers'
local SCHEDULED, DEADLINES, ENDED = PREFIX .. 'scheduled', PREFIX .. 'deadlines', PREFIX .. 'ended'
-- The move under way, whether it carries a fence, and the states it is legal from: the generator sets them.
local MOVE, FENCED, FROM

local function job_key(id) return PREFIX .. 'job:' .. id end
local function events_key(id) return PREFIX .. 'jobs:' .. id end
local function heartbeat_key(id) return PREFIX .. 'heartbeat:' .. id end
local function tag_key(tag) return PREFIX .. 'tag:' .. tag end

-- To make a closure Lua looks for each local it uses among all that closures use so far, from the last one on. One function
-- further in, those above are at hand: the generator closes it.
return (function()

-- Answers are flat arrays of strings: TypeScript parses them in one place.
local function rejected(reason, state) return { 'rejected', reason, state or '' } end
local function repeated(job) return { 'ok', job.cursor, job.state, 'repeat' } end
local function ok(job, more) return { 'ok', job.cursor, job.state, more } end

-- Fields of the hash that go with the event under way.
local fields, field_count = {}, 0
local function put(field, value)
  fields[field_count + 1], fields[field_count + 2] = field, value
  field_count = field_count + 2
end

-- What changes with every event is one field of the hash, `now`: state, cursor, last move, fence (with the attempt),
-- number of the last report; then flags, failures, crashes, and whatever a later release appends. Read and written as
-- one it costs a fifth of eight fields, and it stays below the 64 bytes up to which a hash is compact.
local NOW_PATTERN = '^(%u+) ((%d+)%-%d+) (%l+) ((%d+)%-%S*) (%d+)(.*)$'
local NO_OPTIONS = {}

-- The job as its hash tells it, or nil when there is none. `place` is its entry in the list it stands in, or the time
-- it is due. A report needs no more than `now`.
local function job_of(id, key, now, place, name, options, run, worker)
  field_count = 0
  if not now then return nil end
  local state, cursor, seq, last, fence, attempt, op, rest = match(now, NOW_PATTERN)
  return {
    id = id, key = key, events = events_key(id), state = state, cursor = cursor, seq = seq, last = last, fence = fence,
    attempt = attempt, op = op, rest = rest, place = place, name = name,
    options = options and cjson.decode(options) or NO_OPTIONS, run = run, worker = worker or '',
  }
end

local function read(id)
  local key = job_key(id)
  local v = call('HMGET', key, 'now', 'place', 'name', 'options', 'run', 'worker')
  return job_of(id, key, v[1], v[2], v[3], v[4], v[5], v[6])
end

-- Flags: x cancel requested, k checkpoint kept, e error kept; - for none.
local REST_PATTERN = '^ (%S+) (%d+) (%d+)(.*)$'
local function has(job, flag) return find(match(job.rest, '^ %S+'), flag, 1, true) ~= nil end
local function flag(job, given)
  if not has(job, given) then job.rest = gsub(gsub(job.rest, '^ %-', ' '), '^ ', ' ' .. given) end
end
local function unflag(job, given)
  if has(job, given) then job.rest = gsub(gsub(job.rest, given, '', 1), '^  ', ' - ') end
end
local function budgets(job)
  local _, failures, crashes = match(job.rest, REST_PATTERN)
  return tonumber(failures), tonumber(crashes)
end
local function spend_budget(job, failures, crashes)
  local flags, failed, crashed, rest = match(job.rest, REST_PATTERN)
  job.rest = ' ' .. flags .. ' ' .. int(failed + failures) .. ' ' .. int(crashed + crashes) .. rest
end

-- Start and lease of the attempt; after its end only the start is kept.
local function run_of(job)
  local startedAt, leaseMs = match(job.run or '', '^(%d+) ?(%d*)')
  return tonumber(startedAt or '0'), tonumber(present(leaseMs) or DEFAULTS.leaseMs)
end

-- Until a quarter of its lease has passed an attempt needs no heartbeat key: short jobs never have one.
local function may_have_heartbeat(startedAt, leaseMs)
  return NOW - startedAt >= leaseMs / 4 or NOW < startedAt
end

-- The heartbeat of an attempt. One that is asked to stop has another than the usual, by which its worker hears of it.
local function heartbeat_of(job) return job.fence .. ' ' .. job.worker .. (has(job, 'x') and ' x' or '') end
local function arm(job, leaseMs) call('SET', heartbeat_key(job.id), heartbeat_of(job), 'PX', int(leaseMs)) end

-- Rules on the move. Returns the job, or nil and the answer to give.
local function rule(job, fence)
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
local function judge(id, fence) return rule(read(id), fence) end
local function judge_by_now(id, fence)
  local key = job_key(id)
  return rule(job_of(id, key, call('HGET', key, 'now')), fence)
end

-- A steering move has no fence by which its repeat is known: each has a name, and the job keeps the last three with the
-- seq of their events. One that comes again, its reply lost, answers as the first time, whatever happened since; one that
-- changed nothing is judged anew.
local function judge_steering(id, op)
  local held = call('HGET', job_key(id), 'steered') or ''
  local seq = match(held, op .. ':(%d+)')
  if seq then
    local made = call('XRANGE', events_key(id), seq, seq)[1]
    return nil, { 'ok', made[1], match(made[2][2], '>(%u+)'), '' }
  end
  local job, rejection = judge(id)
  if job then put('steered', op .. ':' .. int(job.seq + 1) .. ' ' .. (match(held, '^%S+ %S+') or held)) end
  return job, rejection
end

local function now_of(job)
  return job.state .. ' ' .. job.cursor .. ' ' .. job.last .. ' ' .. job.fence .. ' ' .. job.op .. job.rest
end

-- One event into the job's stream. It comes before every other write, since it alone can refuse. It reads
-- "<kind> <attempt><more>", as events.ts expands it.
local event
local function append(job, told)
  local seq = job.seq + 1
  event = told
  job.seq, job.cursor = seq, int(seq) .. '-' .. AT
  call('XADD', job.events, job.cursor, 'e', told)
end

-- The hash as the event left it, and the event to whoever listens.
local function store(job)
  put('now', now_of(job))
  call('HSET', job.key, unpack(fields, 1, field_count))
  field_count = 0
  call(PUBLISH, job.events, job.cursor .. ' ' .. event)
end

-- Only so many reports are kept: the oldest give way, a hundred at a time, state changes never.
local function trim_reports(key, events, seq)
  local first = tonumber(call('HGET', key, 'reportsFrom') or '') or 1
  local beyond = seq - LIMITS.reportsKept
  local stale = {}
  for _, entry in ipairs(call('XRANGE', events, int(first) .. '-0', '(' .. int(beyond) .. '-0')) do
    if not find(entry[2][2], '^%l+>') then stale[#stale + 1] = entry[1] end
  end
  if #stale > 0 then call('XDEL', events, unpack(stale)) end
  call('HSET', key, 'reportsFrom', int(beyond))
end

-- A report of the running attempt, the most frequent of all moves: it knows the job by `now` alone and changes no more
-- of it than cursor and op. `op` counts the attempt's reports, so a repeated one is told from a new one.
local REPORT_PATTERN = '^PROCESSING ((%d+)%-%d+) (%l+ ((%d+)%-%S*)) (%d+)(.*)$'
local function report(id, fence, op, kind, value)
  local key = job_key(id)
  local now = call('HGET', key, 'now')
  local cursor, seq, owner, current, attempt, last, rest = match(now or '', REPORT_PATTERN)
  if current ~= fence then
    local _, rejection = rule(job_of(id, key, now), fence)
    return rejection
  end
  if tonumber(op) <= tonumber(last) then return { 'ok', cursor, 'PROCESSING', 'repeat' } end
  local events, told = events_key(id), kind .. ' ' .. attempt .. ' ' .. value
  seq = seq + 1
  cursor = int(seq) .. '-' .. AT
  call('XADD', events, cursor, 'e', told)
  now = 'PROCESSING ' .. cursor .. ' ' .. owner .. ' ' .. op .. rest
  if kind == 'progress' then
    call('HSET', key, 'now', now, 'progress', value)
  else
    call('HSET', key, 'now', now)
  end
  call(PUBLISH, events, cursor .. ' ' .. told)
  if seq > LIMITS.reportsKept + 100 and seq % 100 == 0 then trim_reports(key, events, seq) end
  return { 'ok', cursor, 'PROCESSING' }
end

-- A change of state: `enter` tells it, `store` keeps it. `more` is further JSON members of the event.
local function enter(job, state, more)
  job.state, job.last = state, MOVE
  append(job, MOVE .. '>' .. state .. ' ' .. job.attempt .. more)
end

-- After every change of state, when the tag's other keys are what they are to be. Of each tag a sorted set holds the states
-- of its jobs, one range of scores a state; in those of ended jobs the score goes on with the time the job expires, so that
-- nobody has to count it out. The member `*` counts the changes, and every change is told on the channel of the set's
-- name: `<count> <id> <from> <to> <seq>`, - for no state; the one that makes the set with ` new` behind. An owner is no tag to watch.
local function tell_tags(job, from, to)
  if not job.options.tags or from == to then return end
  local ranges = { SCHEDULED = 1e13, QUEUED = 2e13, PROCESSING = 3e13, COMPLETED = 4e13, FAILED = 5e13, CANCELLED = 6e13 }
  local live, ended = ranges.SCHEDULED, ranges.COMPLETED
  local range = ranges[to]
  -- With a space before each: what begins with @ is none.
  for tag in gmatch(' ' .. job.options.tags, ' ([^@ ]%S*)') do
    local states = tag_key(tag) .. ':states'
    if not range then
      call('ZREM', states, job.id)
    elseif range < ended then
      call('ZADD', states, int(range), job.id)
      -- Jobs that have not ended keep the set for ever.
      if (ranges[from] or ended) >= ended then call('PERSIST', states) end
    else
      local retention = job.options.retentionMs or DEFAULTS.retentionMs
      call('ZREMRANGEBYSCORE', states, int(range), int(range + NOW))
      call('ZADD', states, int(range + NOW + retention), job.id)
      if call('EXISTS', tag_key(tag)) == 0 then
        -- What a release that knows no such sets has ended.
        call('ZREMRANGEBYSCORE', states, int(live), '(' .. int(ended))
        call('PEXPIRE', states, call('PTTL', tag_key(tag) .. ':ended'))
      end
    end
    -- Where a job is removed that a release without such sets has ended, one made now would stay for ever.
    if range or call('EXISTS', states) == 1 then
      local version, first = call('ZINCRBY', states, 1, '*'), ''
      if version == '1' then
        -- It goes on from no number that a set had which has expired.
        version, first = AT, ' new'
        call('ZADD', states, version, '*')
      end
      call(PUBLISH, states, version .. ' ' .. job.id .. ' ' .. from .. ' ' .. to .. ' ' .. job.seq .. first)
    end
  end
end

local function queue_of(job)
  local priority = job.options.priority
  return priority and job.name .. ':' .. priority or job.name
end

-- Puts the job's id into its work stream and answers the entry; the first job of a queue creates stream and group.
local function push(queue, id)
  local work = PREFIX .. 'work:' .. queue
  local entry = call('XADD', work, 'NOMKSTREAM', '*', 'id', id)
  if not entry then
    call('SADD', PREFIX .. 'queues', queue)
    call('XGROUP', 'CREATE', work, GROUP, '0', 'MKSTREAM')
    entry = call('XADD', work, '*', 'id', id)
  end
  -- In a cluster no read can wait at the streams of several partitions: idle workers are told of the first job that waits.
  if PUBLISH == 'SPUBLISH' and call('XLEN', work) - call('XINFO', 'GROUPS', work)[1][6] == 1 then
    call(PUBLISH, work, '')
  end
  return entry
end

-- Entries that are done with go at the end of the script, together.
local done = {}
local function drop(queue, entry)
  local entries = done[queue]
  if not entries then
    entries = {}
    done[queue] = entries
  end
  entries[#entries + 1] = entry
end
local function is_before(a, b)
  local ams, aseq = match(a, '^(%d+)%-(%d+)$')
  local bms, bseq = match(b, '^(%d+)%-(%d+)$')
  return ams + 0 < bms + 0 or ams == bms and aseq + 0 < bseq + 0
end
-- XDEL walks the stream's node, a hundred entries, for each entry anew. What was delivered and stands before the first entry
-- that is still in somebody's hands is done with: where that is much, it is cut off in one walk.
local MANY = 8
-- One that was put into somebody's hands to mend it may stand behind others that nobody has read yet.
local function is_delivered(work, entry)
  for _, group in ipairs(call('XINFO', 'GROUPS', work)) do
    if group[2] == GROUP then return not is_before(group[8], entry) end
  end
end
local function delete(work, entries)
  if #entries >= MANY then
    local first = call('XPENDING', work, GROUP, '-', '+', 1)[1]
    if first and is_delivered(work, first[1]) then
      call('XTRIM', work, 'MINID', '=', first[1])
      local left = {}
      for _, entry in ipairs(entries) do
        if not is_before(entry, first[1]) then left[#left + 1] = entry end
      end
      entries = left
    end
  end
  if #entries > 0 then call('XDEL', work, unpack(entries)) end
end
local function drop_done()
  for queue, entries in pairs(done) do
    local work = PREFIX .. 'work:' .. queue
    call('XACK', work, GROUP, unpack(entries))
    delete(work, entries)
  end
  done = {}
end

-- Takes the job out of the list it stands in, waiting or running, and out of its worker's hands.
local function pull(job, from)
  if from == 'SCHEDULED' then
    call('ZREM', SCHEDULED, job.id)
  else
    drop(queue_of(job), job.place)
  end
  if from == 'PROCESSING' then
    local startedAt, leaseMs = run_of(job)
    if may_have_heartbeat(startedAt, leaseMs) then call('DEL', heartbeat_key(job.id)) end
    put('run', int(startedAt))
    call('HDEL', job.key, 'worker')
    if job.options.timeoutMs or job.options.stallMs then call('ZREM', DEADLINES, job.id) end
  end
end

-- What an ended job leaves lives as long as the job itself does.
local function outlive(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, int(ms)) end
end

-- Lists an ended job under its state and answers the entry. Jobs of one state and retention end in the order they
-- expire, so a stream lists them, at a third of a sorted set's bytes.
local listed = {}
local function list_ended(id, state, retention)
  local name = state .. ':' .. int(retention)
  local ended = ENDED .. ':' .. name
  if listed[name] then return call('XADD', ended, '*', 'id', id) end
  listed[name] = true
  local entry = call('XADD', ended, 'MINID', '~', int(math.max(0, NOW - retention)), '*', 'id', id)
  -- The list outlives its youngest job by up to a quarter of the retention, so that this is seldom.
  if call('PTTL', ended) < retention then
    local lifetime = retention + math.floor(retention / 4)
    call('PEXPIRE', ended, int(lifetime))
    call('ZREMRANGEBYSCORE', ENDED, '-inf', AT)
    call('ZADD', ENDED, int(NOW + lifetime), name)
    outlive(ENDED, lifetime)
  end
  return entry
end

-- Ends the job: out of the work, listed until the retention has passed, and gone by itself then.
local function finish(job, state, more)
  local from, options = job.state, job.options
  local retention = options.retentionMs or DEFAULTS.retentionMs
  local lifetime = int(retention)
  enter(job, state, more)
  pull(job, from)
  if from ~= 'PROCESSING' and options.ttlMs then call('ZREM', DEADLINES, job.id) end
  -- A finished job has no error, and none needs a checkpoint.
  if has(job, 'k') then
    call('HDEL', job.key, 'checkpoint')
    unflag(job, 'k')
  end
  if state == 'COMPLETED' and has(job, 'e') then
    call('HDEL', job.key, 'error')
    unflag(job, 'e')
  end
  put('place', list_ended(job.id, state, retention))
  store(job)
  call('PEXPIRE', job.key, lifetime)
  call('PEXPIRE', job.events, lifetime)
  if not options.tags then return end
  for tag in gmatch(options.tags, '%S+') do
    local kept = tag_key(tag) .. ':ended'
    call('ZREM', tag_key(tag), job.id)
    call('ZREMRANGEBYSCORE', kept, '-inf', AT)
    call('ZADD', kept, int(NOW + retention), job.id)
    outlive(kept, retention)
  end
  tell_tags(job, from, state)
end

-- To run at once (delayMs 0) or at a time to come.
local function wait(job, delayMs, more)
  local from = job.state
  local due = delayMs > 0 and int(NOW + delayMs)
  enter(job, due and 'SCHEDULED' or 'QUEUED', due and ',"runAt":' .. due .. more or more)
  pull(job, from)
  if due then call('ZADD', SCHEDULED, due, job.id) end
  put('place', due or push(queue_of(job), job.id))
  store(job)
  tell_tags(job, from, job.state)
end

-- Back to the queue from a worker; or, when a cancel was asked for meanwhile, to its end.
local function again(job, delayMs, more)
  if has(job, 'x') then return finish(job, 'CANCELLED', more) end
  wait(job, delayMs, more)
end

-- The last progress of an attempt goes with the change of state that ends it: one event instead of two.
local function last_progress(progress)
  if progress == '' then return '' end
  put('progress', progress)
  return ',"progress":' .. progress
end

-- Keeps the error that ended an attempt or the job.
local function failed(job, failure)
  put('error', failure)
  flag(job, 'e')
  return ',"error":' .. failure
end

local function wait_from(delayMs, runAt)
  if present(runAt) then return math.max(0, tonumber(runAt) - NOW) end
  return tonumber(delayMs)
end

-- Whether a job that waits for its first attempt has waited longer than it was worth. One that is run again is wanted
-- however late it comes: it has no deadline any more.
local function is_over(job)
  if not job.options.ttlMs or job.attempt ~= '0' then return false end
  local deadline = call('ZSCORE', DEADLINES, job.id)
  return deadline and tonumber(deadline) <= NOW
end

local function expire(job, more)
  MOVE = 'expire'
  local failure = '{"name":"Expired","code":"EXPIRED","message":"Nobody took the job within its time to live."}'
  finish(job, 'FAILED', failed(job, failure) .. (more or ''))
end

-- Takes an ended job out of the lists of ended ones.
local function unlist(job)
  local retention = job.options.retentionMs or DEFAULTS.retentionMs
  call('XDEL', ENDED .. ':' .. job.state .. ':' .. int(retention), job.place)
  for tag in gmatch(job.options.tags or '', '%S+') do call('ZREM', tag_key(tag) .. ':ended', job.id) end
end
