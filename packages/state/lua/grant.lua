-- Shared by claim and take: the start of an attempt.

local GRANTED = {
  'failures', 'maxAttempts', 'createdAt', 'backoff', 'timeoutMs', 'checkpoint', 'trace', 'tags', 'expiresAt', 'rateKey',
  'deadline',
}
local GRANT_SIZE = 13

-- What a worker needs to run the attempt, and nothing else of the hash. The payload is the stream's entry 0-1.
local function granted(job, v)
  local payload = call('XRANGE', events_key(job.id), '0-1', '0-1')[1]
  return {
    job.id, job.cursor, job.fence, job.attempt, v[1] or '0', v[2] or int(DEFAULTS.maxAttempts), v[3], v[4] or '',
    v[5] or '', v[6] or '', v[7] or '', v[8] or '', payload and payload[2][2] or 'null',
  }
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
local function start(job, worker, nonce, leaseMs, keyMax, keyPerMs)
  local v = call('HMGET', job_key(job.id), unpack(GRANTED))
  if v[9] and tonumber(v[9]) <= NOW then
    expire(job)
    return nil, rejected('expired', job.state)
  end
  if present(v[10]) and present(keyMax) then
    local rate = rate_key(job.name .. ':' .. v[10])
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
  enter(job, 'PROCESSING', ',"worker":' .. text(worker))
  local set = { 'attempt', job.attempt, 'fence', job.fence, 'worker', worker, 'op', '0', 'startedAt', AT }
  if tonumber(leaseMs) ~= DEFAULTS.leaseMs then
    set[#set + 1], set[#set + 2] = 'leaseMs', leaseMs
  end
  -- The progress and the time to live were the last attempt's and the queue's.
  if job.attempt ~= '1' then
    set[#set + 1], set[#set + 2] = 'progress', ''
  end
  if v[9] then call('HDEL', job_key(job.id), 'expiresAt') end
  if present(v[5]) then
    -- The worker ends an attempt that takes too long; the reaper does so a lease later, should the worker not.
    call('ZADD', PREFIX .. 'deadlines', int(NOW + tonumber(v[5]) + tonumber(leaseMs)), job.id)
    set[#set + 1], set[#set + 2] = 'deadline', '1'
  elseif present(v[11]) then
    call('ZREM', PREFIX .. 'deadlines', job.id)
    set[#set + 1], set[#set + 2] = 'deadline', ''
  end
  settle(job, set)
  call('SET', heartbeat_key(job.id), job.fence .. ' ' .. worker, 'PX', leaseMs)
  return granted(job, v)
end
