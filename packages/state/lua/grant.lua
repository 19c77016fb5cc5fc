-- Shared by claim and take: the start of an attempt.

-- What a worker needs to run the attempt, and nothing else of the hash. The payload is the stream's entry 0-2.
local GRANT_SIZE = 13
local function granted(job, createdAt, checkpoint)
  local payload = call('XRANGE', events_key(job.id), '0-2', '0-2')[1]
  local options = job.options
  return {
    job.id, job.cursor, job.fence, job.attempt, job.failures, int(options.maxAttempts or DEFAULTS.maxAttempts), createdAt,
    options.backoff or '', options.timeoutMs and int(options.timeoutMs) or '', checkpoint or '', options.trace or '',
    options.tags or '', payload and payload[2][2] or 'null',
  }
end

-- The job as a claim finds it, with what it grants beside.
local function read_for_grant(id)
  local v = call('HMGET', job_key(id), 'now', 'name', 'options', 'run', 'createdAt', 'checkpoint')
  return job_of(id, v[1], v[2], v[3], v[4]), v[5], v[6]
end

-- A rate is kept as the time at which it would be used up evenly (GCRA): one key, exact, without a window's edge.
-- Answers how many more may start now, and in how many milliseconds the next may.
local function spare(key, max, perMs)
  local each = perMs / max
  local used = math.max(tonumber(call('GET', key) or '') or NOW, NOW)
  local free = math.floor((NOW + perMs - used) / each + 1e-6)
  return math.max(0, free), math.ceil(used + each - perMs - NOW)
end

local function spend(key, max, perMs, count)
  if count == 0 then return end
  local used = math.max(tonumber(call('GET', key) or '') or NOW, NOW) + count * perMs / max
  call('SET', key, string.format('%.3f', used), 'PX', int(math.ceil(used - NOW)))
end

local function rate_key(name) return PREFIX .. 'rate:' .. name end

-- Whether claims of the name are stopped.
local function paused(name)
  local held = call('SMISMEMBER', PREFIX .. 'paused', '*', name)
  return held[1] == 1 or held[2] == 1
end

-- Starts an attempt of a queued job. Answers the grant, or nil and why not.
local function start(job, createdAt, checkpoint, worker, nonce, leaseMs, keyMax, keyPerMs)
  local options = job.options
  if is_over(job) then
    expire(job)
    return nil, rejected('expired', job.state)
  end
  if options.rateKey and present(keyMax) then
    local rate = rate_key(job.name .. ':' .. options.rateKey)
    local free, waitMs = spare(rate, tonumber(keyMax), tonumber(keyPerMs))
    if free == 0 then
      MOVE = 'defer'
      wait(job, math.max(1, waitMs), ',"reason":"rate_limited"', {})
      return nil, rejected('deferred', job.state)
    end
    spend(rate, tonumber(keyMax), tonumber(keyPerMs), 1)
  end
  MOVE = 'claim'
  job.attempt = int(tonumber(job.attempt) + 1)
  job.fence = job.attempt .. '-' .. nonce
  job.op = '0'
  enter(job, 'PROCESSING', ',"worker":' .. text(worker))
  -- The time to live was the queue's. The worker ends an attempt that takes too long; the reaper does so a lease later.
  if options.timeoutMs then
    call('ZADD', DEADLINES, int(NOW + options.timeoutMs + tonumber(leaseMs)), job.id)
  elseif options.ttlMs then
    call('ZREM', DEADLINES, job.id)
  end
  local run = AT .. ' ' .. leaseMs .. ' ' .. worker
  -- The progress was the last attempt's.
  store(job, job.attempt == '1' and { 'run', run } or { 'run', run, 'progress', '' })
  return granted(job, createdAt, checkpoint)
end
