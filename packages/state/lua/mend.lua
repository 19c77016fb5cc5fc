-- Holds things against what belongs to them: each with all that concerns it in one moment, so that a live system gives no
-- false alarm. Mends what it finds where `mode` is 'fix'. Answers four strings a finding: code, what it is about, in words
-- what is so, and 'found', 'mended', or 'restore' where only the stream, folded by TypeScript, can tell what was.
-- The arguments are the things: kind, a, b of each.
local answer = {}
-- What is about to expire may lack one half for a moment; milliseconds.
local SOON = 1000
local DAY = DEFAULTS.retentionMs
local RANGES = { SCHEDULED = 1e13, QUEUED = 2e13, PROCESSING = 3e13, COMPLETED = 4e13, FAILED = 5e13, CANCELLED = 6e13 }
local FIRST_ENDED = 4e13
local ENTRY = '^%d+%-%d+$'

-- `mend` is a function, or the outcome to tell.
local function tell(code, about, says, mend)
  local outcome = type(mend) == 'string' and mend or 'found'
  if type(mend) == 'function' and mode == 'fix' then
    mend()
    outcome = 'mended'
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = code, about, says, outcome
end

-- The job; nil where there is none, false where it can't be read: its own look tells so.
local function look_up(id)
  local fine, job = pcall(read, id)
  if fine and not job and call('EXISTS', job_key(id)) == 0 then return nil end
  return fine and job and job.state and job.name and match(job.rest, REST_PATTERN) and job or false
end

-- Where the key can't be read as what it should be, no history mends it.
local function is_of_its_type(about, ...)
  local fine = pcall(call, ...)
  if not fine then tell('unreadable', about, 'It is no key of the type that it should be.') end
  return fine
end

local function is_going(left) return left >= 0 and left < SOON end
local function is_mine(entry, id) return entry ~= nil and entry[2][2] == id end

-- Queues -----------------------------------------------------------------------------------------------------------------

-- The last entry that the group was given, or nil without a group. Once a call for each queue.
local delivered = {}
local function delivered_of(queue)
  if delivered[queue] ~= nil then return delivered[queue] end
  local work = PREFIX .. 'work:' .. queue
  local last = false
  if call('EXISTS', work) == 1 then
    for _, group in ipairs(call('XINFO', 'GROUPS', work)) do
      if group[2] == GROUP then last = group[8] end
    end
  end
  if last or call('EXISTS', work) == 0 then
    delivered[queue] = last
    return last
  end
  tell('group_missing', 'work:' .. queue, 'The work stream has no consumer group, so nobody takes its jobs.', function()
    call('XGROUP', 'CREATE', work, GROUP, '0')
    last = '0-0'
  end)
  delivered[queue] = last
  return last
end

local function check_queue(queue)
  local work = PREFIX .. 'work:' .. queue
  if call('SMISMEMBER', PREFIX .. 'queues', queue)[1] == 0 then
    tell('queue_unlisted', 'work:' .. queue, 'No reaper and no count looks at the queue: it is not among `queues`.',
      function() call('SADD', PREFIX .. 'queues', queue) end)
  end
  delivered_of(queue)
end

local function is_pending(work, entry) return call('XPENDING', work, GROUP, entry, entry, 1)[1] ~= nil end

-- One job ----------------------------------------------------------------------------------------------------------------

local function set_place(job, place)
  job.place = place
  call('HSET', job.key, 'place', place)
end

-- Puts the entry into somebody's hands, given out or not: of who runs the job, or of the reaper where nobody has its fence.
-- Where it is the next one to be given out, it has been.
local function hold(job, work)
  local holder = job.worker ~= '' and not find(job.fence, '%-$') and job.worker or 'reaper'
  local last = call('XINFO', 'GROUPS', work)[1][8]
  local next = call('XRANGE', work, '(' .. last, '+', 'COUNT', 1)[1]
  if next and next[1] == job.place then last = job.place end
  call('XCLAIM', work, GROUP, holder, 0, job.place, 'FORCE', 'JUSTID', 'LASTID', last)
end

local function check_work(job)
  local queue = queue_of(job)
  local work = PREFIX .. 'work:' .. queue
  local stands = match(job.place or '', ENTRY) and is_mine(call('XRANGE', work, job.place, job.place)[1], job.id)
  local last = delivered_of(queue)
  if job.state == 'QUEUED' then
    if not stands then
      return tell('not_queued', job.id, 'QUEUED, and not in the queue ' .. queue .. ': nobody would ever take it.',
        function() set_place(job, push(queue, job.id)) end)
    end
    if last and not is_before(last, job.place) and not is_pending(work, job.place) then
      tell('not_delivered', job.id, 'QUEUED, and its entry was given out and is in nobody\'s hands.', function()
        call('XDEL', work, job.place)
        set_place(job, push(queue, job.id))
      end)
    end
    return
  end
  if not stands then
    return tell('not_held', job.id, 'PROCESSING without a work entry: were its worker to die, nobody would notice.', function()
      set_place(job, push(queue, job.id))
      hold(job, work)
    end)
  end
  if last and not is_pending(work, job.place) then
    tell('not_held', job.id, 'PROCESSING, and its work entry is in nobody\'s hands.', function() hold(job, work) end)
  end
end

local function check_due(job)
  local due, place = call('ZSCORE', SCHEDULED, job.id), tonumber(job.place or '')
  if job.state ~= 'SCHEDULED' then
    if due then
      tell('stray_due', job.id, job.state .. ', and among the scheduled ones.', function() call('ZREM', SCHEDULED, job.id) end)
    end
  elseif not due or not place or tonumber(due) ~= place then
    tell('not_due', job.id, 'SCHEDULED, and not among the scheduled ones at its time: it would never be queued.', function()
      place = int(place or tonumber(due or AT))
      call('ZADD', SCHEDULED, place, job.id)
      set_place(job, place)
    end)
  end
end

-- One that was run again is wanted however late it comes.
local function was_rerun(job)
  for _, entry in ipairs(call('XRANGE', job.events, '1-0', '+', 'COUNT', 1000)) do
    if find(entry[2][2], '^rerun>') then return true end
  end
  return false
end

local function check_deadline(job, createdAt)
  local deadline, options = call('ZSCORE', DEADLINES, job.id), job.options
  local wanted
  if job.state == 'PROCESSING' then
    local startedAt, leaseMs = run_of(job)
    local limit = math.min(options.timeoutMs or math.huge, options.stallMs or math.huge)
    wanted = limit < math.huge and startedAt + limit + leaseMs
  elseif RANGES[job.state] < FIRST_ENDED and options.ttlMs and job.attempt == '0' and not was_rerun(job) then
    wanted = (tonumber(createdAt or '') or NOW) + options.ttlMs
  end
  if deadline and not wanted then
    tell('stray_deadline', job.id, job.state .. ', and has a deadline that is none of its own.',
      function() call('ZREM', DEADLINES, job.id) end)
  elseif wanted and not deadline then
    tell('deadline_missing', job.id, job.state .. ', its time is limited, and nobody would end it.',
      function() call('ZADD', DEADLINES, int(wanted), job.id) end)
  end
end

local function check_heartbeat(job)
  local key = heartbeat_key(job.id)
  local beat = call('GET', key)
  if not beat then return end
  local _, leaseMs = run_of(job)
  local left = call('PTTL', key)
  if job.state ~= 'PROCESSING' or match(beat, '^%S+') ~= job.fence then
    tell('stray_heartbeat', job.id, job.state .. ', and there is a heartbeat of another attempt.',
      function() call('DEL', key) end)
  elseif left == -1 or left > leaseMs + SOON then
    tell('heartbeat_for_ever', job.id, 'Its heartbeat outlives the lease: were its worker to die, nobody would notice.',
      function() call('PEXPIRE', key, int(leaseMs)) end)
  end
end

-- Every change of a tag's counts is numbered and told, a repair too: who counts along stays right.
local function count_tag(tag, id, from, to, seq)
  local states = tag_key(tag) .. ':states'
  if to == '-' and call('EXISTS', states) == 0 then return end
  local version, first = call('ZINCRBY', states, 1, '*'), ''
  if version == '1' then
    version, first = AT, ' new'
    call('ZADD', states, version, '*')
  end
  call(PUBLISH, states, version .. ' ' .. id .. ' ' .. from .. ' ' .. to .. ' ' .. seq .. first)
end

local function state_of(score)
  for state, range in pairs(RANGES) do
    if score and math.floor(tonumber(score) / 1e13) * 1e13 == range then return state end
  end
  return '-'
end

local function check_tag(job, tag, createdAt, left)
  local range = RANGES[job.state]
  local ended = range >= FIRST_ENDED
  local live_key, over_key, states = tag_key(tag), tag_key(tag) .. ':ended', tag_key(tag) .. ':states'
  local live, over = call('ZSCORE', live_key, job.id), call('ZSCORE', over_key, job.id)
  local score = call('ZSCORE', states, job.id)
  local expires = NOW + left
  local function near(time) return math.abs(time - expires) <= SOON and time end
  local listed_till = over and near(tonumber(over))
  expires = listed_till or score and near(tonumber(score) - range) or expires
  local function wrong(says, mend)
    tell('tag_differs', job.id, job.state .. ', and ' .. says .. ' the tag ' .. tag .. '.', mend)
  end
  if ended then
    if live then wrong('among the live ones of', function() call('ZREM', live_key, job.id) end) end
    if not listed_till then
      wrong('missing among the ended ones of', function()
        call('ZADD', over_key, int(expires), job.id)
        outlive(over_key, left)
      end)
    end
  else
    if not live then
      wrong('missing among the live ones of', function()
        call('ZADD', live_key, createdAt or AT, job.id)
        call('PERSIST', states)
      end)
    end
    if over then wrong('among the ended ones of', function() call('ZREM', over_key, job.id) end) end
  end
  if find(tag, '^@') then return end
  local wanted = ended and range + expires or range
  if score and tonumber(score) == wanted then return end
  wrong('counted as ' .. state_of(score) .. ' by', function()
    call('ZADD', states, int(wanted), job.id)
    if not ended then
      call('PERSIST', states)
    elseif call('EXISTS', live_key) == 0 then
      call('PEXPIRE', states, int(left))
    end
    count_tag(tag, job.id, state_of(score), job.state, job.seq)
  end)
end

local function check_ended(job, left)
  local retention = job.options.retentionMs or DEFAULTS.retentionMs
  if left == -1 then
    tell('lives_for_ever', job.id, job.state .. ', and without a time to live.', function()
      left = math.max(SOON, tonumber(match(job.cursor, '%d+$')) + retention - NOW)
      call('PEXPIRE', job.key, int(left))
      call('PEXPIRE', job.events, int(left))
    end)
  end
  local name = job.state .. ':' .. int(retention)
  local list = ENDED .. ':' .. name
  if not match(job.place or '', ENTRY) or not is_mine(call('XRANGE', list, job.place, job.place)[1], job.id) then
    -- A list is in the order in which its jobs expire: who comes to its end is kept for a whole retention again.
    tell('not_listed', job.id, job.state .. ', and in no list and no count of such jobs.', function()
      set_place(job, list_ended(job.id, job.state, retention))
      left = retention
      call('PEXPIRE', job.key, int(left))
      call('PEXPIRE', job.events, int(left))
    end)
  end
  if left == -1 then return left end
  local stream_left = call('PTTL', job.events)
  if stream_left ~= -2 and math.abs(stream_left - left) > SOON then
    tell('lifetimes_differ', job.id, job.state .. ', and its history does not live as long as it does.',
      function() call('PEXPIRE', job.events, int(left)) end)
  end
  local known, list_left = call('ZSCORE', ENDED, name), call('PTTL', list)
  if list_left ~= -2 and (not known or tonumber(known) + SOON < NOW + left or list_left + SOON < left) then
    tell('list_unknown', 'ended:' .. name, 'The list of ended jobs is known for less long than they are kept.', function()
      call('PEXPIRE', list, int(retention + math.floor(retention / 4)))
      call('ZADD', ENDED, int(NOW + retention + math.floor(retention / 4)), name)
      outlive(ENDED, retention + math.floor(retention / 4))
    end)
  end
  return left
end

local function check_live(job, left, stream_left)
  if left ~= -1 or stream_left >= 0 then
    tell('would_vanish', job.id, job.state .. ', and would vanish by itself.', function()
      call('PERSIST', job.key)
      call('PERSIST', job.events)
    end)
  end
end

-- A line that says so goes where history was lost: the stream and the hash go on from one event.
local function go_on(job, says)
  append(job, 'log ' .. job.attempt .. ' ' .. text(says))
  store(job)
end

-- Without its payload nobody can run it.
local function give_up(job)
  MOVE = 'expire'
  if not match(job.place or '', ENTRY) then job.place = '0-0' end
  local failure = '{"name":"Damaged","code":"DAMAGED","message":"The payload was lost in Redis: enqueue the job again."}'
  finish(job, 'FAILED', failed(job, failure))
  drop_done()
end

-- Answers whether the job can be looked at further.
local function check_history(job, left)
  local last = call('XREVRANGE', job.events, '+', '-', 'COUNT', 1)[1]
  local waits = job.state == 'QUEUED' or job.state == 'SCHEDULED'
  local at = last and not find(last[1], '^0%-') and last[1]
  if waits and #call('XRANGE', job.events, '0-2', '0-2') == 0 then
    tell('payload_lost', job.id, job.state .. ', and its payload is gone.', function() give_up(job) end)
    return false
  end
  if at == job.cursor then return true end
  if at and not is_before(at, job.cursor) then
    tell('behind_history', job.id, job.state .. ' at ' .. job.cursor .. ', and its history stands at ' .. at
      .. ': every change of it would be refused.', 'restore')
    return false
  end
  tell(at and 'history_short' or 'hash_without_stream', job.id, job.state .. ' at ' .. job.cursor .. ', and its history '
    .. (at and 'ends at ' .. at or 'is gone') .. '.', function()
    go_on(job, 'The history before this line was lost in Redis.')
    if left >= 0 then call('PEXPIRE', job.events, int(left)) end
  end)
  return true
end

local function check_job(id)
  local key, events = job_key(id), events_key(id)
  local left, stream_left = call('PTTL', key), call('PTTL', events)
  if left == -2 then
    if stream_left == -2 or is_going(stream_left) then return end
    if not is_of_its_type('jobs:' .. id, 'XREVRANGE', events, '+', '-', 'COUNT', 1) then return end
    return tell('stream_without_hash', id, 'There is a history, and no job.', 'restore')
  end
  local job = look_up(id)
  if not job then
    if is_going(left) or not is_of_its_type('job:' .. id, 'HMGET', key, 'now') then return end
    return tell('hash_unreadable', id, 'The job\'s hash can\'t be read.', 'restore')
  end
  local range = RANGES[job.state]
  if not range then
    return tell('state_unknown', id, 'The state ' .. job.state .. ' is none that this release knows.')
  end
  local ended = range >= FIRST_ENDED
  if ended and (is_going(left) or is_going(stream_left)) then return end
  local createdAt = call('HMGET', key, 'createdAt')[1]
  if not check_history(job, left) then return end
  if ended then
    left = check_ended(job, left)
  else
    check_live(job, left, call('PTTL', events))
    if job.state ~= 'SCHEDULED' then check_work(job) end
  end
  check_due(job)
  check_deadline(job, createdAt)
  check_heartbeat(job)
  if ended and left == -1 then return end
  for tag in gmatch(job.options.tags or '', '%S+') do check_tag(job, tag, createdAt, left) end
end

-- What TypeScript folded of a stream, unless anything happened since: the last entry, `now` ('' for no hash), then fields.
local function restore(id, folded)
  local key, values = job_key(id), cjson.decode(folded)
  local last = call('XREVRANGE', events_key(id), '+', '-', 'COUNT', 1)[1]
  local now = call('HMGET', key, 'now')[1]
  if not last or last[1] ~= values[1] or (now or '') ~= values[2] then return end
  call('HSET', key, unpack(values, 3))
  if not find(values[4], '^PROCESSING') then call('HDEL', key, 'worker') end
  local left = call('PTTL', events_key(id))
  if left >= 0 then call('PEXPIRE', key, int(left)) end
  tell('restored', id, 'It is ' .. match(values[4], '^%u+') .. ' by its history.', 'mended')
  check_job(id)
end

-- What stands in a list and belongs to no job of it ------------------------------------------------------------------------

local function check_entry(queue, entry_and_id)
  local entry, id = match(entry_and_id, '^(%S+) (.*)$')
  local work = PREFIX .. 'work:' .. queue
  local job = look_up(id)
  if job == false then return end
  local runs = job and (job.state == 'QUEUED' or job.state == 'PROCESSING')
  if runs and job.place == entry and queue_of(job) == queue then return end
  if not is_mine(call('XRANGE', work, entry, entry)[1], id) then return end
  tell('stray_entry', 'work:' .. queue, 'The entry ' .. entry .. ' of ' .. id .. ', which '
    .. (job and 'is ' .. job.state .. ' and stands elsewhere.' or 'is no job.'), function()
    call('XACK', work, GROUP, entry)
    call('XDEL', work, entry)
  end)
end

local function check_pending(queue, entry)
  local work = PREFIX .. 'work:' .. queue
  if not delivered_of(queue) or call('XRANGE', work, entry, entry)[1] or not is_pending(work, entry) then return end
  tell('stray_pending', 'work:' .. queue, 'The entry ' .. entry .. ' is in somebody\'s hands and not in the queue.',
    function() call('XACK', work, GROUP, entry) end)
end

local function check_listed(name, entry_and_id)
  local entry, id = match(entry_and_id, '^(%S+) (.*)$')
  local state, retention = match(name, '^(%u+):(%d+)$')
  local job = look_up(id)
  if job == false or job and job.place == entry and job.state == state then return end
  if tonumber(match(entry, '^%d+')) + tonumber(retention) <= NOW + SOON then return end
  if not is_mine(call('XRANGE', ENDED .. ':' .. name, entry, entry)[1], id) then return end
  tell('stray_listed', 'ended:' .. name, 'The entry ' .. entry .. ' of ' .. id .. ', which '
    .. (job and 'is ' .. job.state .. '.' or 'is no job any more.'),
    function() call('XDEL', ENDED .. ':' .. name, entry) end)
end

-- `set` is what follows the partition's prefix.
local function check_member(set, id)
  local key = PREFIX .. set
  local score = tonumber(call('ZSCORE', key, id) or '')
  if not score or id == '*' then return end
  local tag, kind = match(set, '^tag:([^:]+):?(%l*)$')
  local job = look_up(id)
  if job == false then return end
  if job then
    -- Its own look covers the sets that it belongs into.
    if not tag or find(' ' .. (job.options.tags or '') .. ' ', ' ' .. tag .. ' ', 1, true) then return end
  else
    local expires = kind == 'ended' and score or kind == 'states' and score >= FIRST_ENDED and score % 1e13
    if expires and expires <= NOW + SOON then return end
  end
  tell('stray_member', set, 'It holds ' .. id .. ', which ' .. (job and 'carries no such tag.' or 'is no job.'), function()
    call('ZREM', key, id)
    if kind == 'states' then count_tag(tag, id, state_of(score), '-', job and job.seq or '0') end
  end)
end

local function check_worker(id)
  local score = call('ZSCORE', PREFIX .. 'workers', id)
  if not score or tonumber(score) <= NOW + SOON or call('EXISTS', PREFIX .. 'worker:' .. id) == 1 then return end
  tell('stray_worker', 'workers', 'The worker ' .. id .. ' is listed, and tells nothing of itself.',
    function() call('ZREM', PREFIX .. 'workers', id) end)
end

-- Lifetimes of what belongs to no single job: `ever`, or the milliseconds that it may live at most.
local function check_life(rest, wanted)
  local key = PREFIX .. rest
  local left = call('PTTL', key)
  if left == -2 then return end
  if wanted == 'ever' then
    if left >= 0 then
      tell('would_vanish', rest, 'It would vanish by itself.', function() call('PERSIST', key) end)
    end
  elseif left == -1 then
    tell('lives_for_ever', rest, 'It has no time to live.', function() call('PEXPIRE', key, wanted) end)
  end
end

-- The states of a tag's jobs live as long as these: for ever while one has not ended.
local function check_states(tag)
  local states, over = tag_key(tag) .. ':states', tag_key(tag) .. ':ended'
  if call('EXISTS', states) == 0 then return end
  if call('EXISTS', tag_key(tag)) == 1 then return check_life('tag:' .. tag .. ':states', 'ever') end
  local left = call('PTTL', over)
  check_life('tag:' .. tag .. ':states', int(left > 0 and left or DAY))
end

local KINDS = {
  job = check_job, queue = check_queue, entry = check_entry, pending = check_pending, listed = check_listed,
  member = check_member, worker = check_worker, life = check_life, states = check_states, restore = restore,
  -- A job is looked at by its hash; here are those that have none.
  half = function(id)
    if call('EXISTS', job_key(id)) == 1 then return end
    if call('EXISTS', events_key(id)) == 1 then return check_job(id) end
    local left = call('PTTL', heartbeat_key(id))
    if left == -1 or left > DAY then
      tell('stray_heartbeat', id, 'There is a heartbeat, and no job.', function() call('DEL', heartbeat_key(id)) end)
    end
  end,
}

for at = 4, #ARGV, 3 do
  -- One that can't be looked at must not hide the others.
  local fine, problem = pcall(KINDS[ARGV[at]], ARGV[at + 1], ARGV[at + 2])
  if not fine then
    tell('unreadable', ARGV[at] .. ' ' .. ARGV[at + 1],
      'Redis says: ' .. (type(problem) == 'table' and problem.err or tostring(problem)))
  end
end
return answer
