-- Shared by claim and take: the start of an attempt.

-- What a worker needs to run the attempt, and nothing else of the hash. The payload is the stream's entry 0-2.
local GRANT_SIZE = 8
local function granted(job, createdAt, checkpoint, options)
  local payload = call('XRANGE', job.events, '0-2', '0-2')[1]
  return {
    job.id, job.cursor, job.fence, int(budgets(job)), createdAt, checkpoint or '', options or '',
    payload and payload[2][2] or 'null',
  }
end

-- The job as a claim finds it, with what it grants beside.
local function read_for_grant(id)
  local key = job_key(id)
  local v = call('HMGET', key, 'now', 'place', 'name', 'options', 'run', 'worker', 'createdAt', 'checkpoint')
  return job_of(id, key, v[1], v[2], v[3], v[4], v[5], v[6]), v[7], v[8], v[4]
end

-- Of a rate the times of its last starts are kept, `max` at most, oldest first: no window of perMs, wherever it begins,
-- has more than max of them. Answers how many more may start now, and in how many milliseconds the next may.
local function spare(key, max, perMs)
  local held = call('LLEN', key)
  local low, high = 0, held
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(call('LINDEX', key, middle)) <= NOW - perMs then low = middle + 1 else high = middle end
  end
  local free = max - (held - low)
  if free > 0 then return free, 0 end
  return 0, math.max(1, tonumber(call('LINDEX', key, held - max)) + perMs - NOW)
end

local function spend(key, max, perMs)
  call('RPUSH', key, AT)
  call('LTRIM', key, -max, -1)
  call('PEXPIRE', key, perMs)
end

local function rate_key(name) return PREFIX .. 'rate:' .. name end

-- Whether claims of the name are stopped.
local function paused(name)
  local held = call('SMISMEMBER', PREFIX .. 'paused', '*', name)
  return held[1] == 1 or held[2] == 1
end

-- Starts an attempt of a queued job. Answers the grant, or nil and why not.
local function start(job, createdAt, checkpoint, given, worker, nonce, leaseMs, max, perMs, keyMax, keyPerMs)
  local options, rate = job.options
  if is_over(job) then
    expire(job)
    return nil, rejected('expired', job.state)
  end
  if options.rateKey and present(keyMax) then
    rate = rate_key(job.name .. ':' .. options.rateKey)
    local free, waitMs = spare(rate, tonumber(keyMax), tonumber(keyPerMs))
    if free == 0 then
      MOVE = 'defer'
      wait(job, math.max(1, waitMs), ',"reason":"rate_limited"')
      return nil, rejected('deferred', job.state)
    end
  end
  -- A job may have a lease of its own. (What options can be wrong in is read before anything is written.)
  local lease = options.leaseMs and int(options.leaseMs) or leaseMs
  local limit = math.min(options.timeoutMs or math.huge, options.stallMs or math.huge)
  MOVE = 'claim'
  job.attempt = int(tonumber(job.attempt) + 1)
  job.fence = job.attempt .. '-' .. nonce
  job.op = '0'
  enter(job, 'PROCESSING', ',"worker":' .. text(worker))
  -- Once the event stands: what refuses to start is no start.
  if rate then spend(rate, tonumber(keyMax), tonumber(keyPerMs)) end
  if present(max) then spend(rate_key(job.name), tonumber(max), tonumber(perMs)) end
  -- The time to live was the queue's. The worker ends an attempt that takes too long; the reaper does so a lease later.
  if limit < math.huge then
    call('ZADD', DEADLINES, int(NOW + limit + tonumber(lease)), job.id)
  elseif options.ttlMs then
    call('ZREM', DEADLINES, job.id)
  end
  put('run', AT .. ' ' .. lease)
  put('worker', worker)
  -- The progress was the last attempt's.
  if job.attempt ~= '1' then put('progress', '') end
  store(job)
  tell_tags(job, 'QUEUED', 'PROCESSING')
  return granted(job, createdAt, checkpoint, given)
end
