-- Shared by reap and expire: what becomes of a job whose attempt was taken away, and the sentence that tells people.

local function seconds(ms) return string.format(ms < 10000 and '%.1f s' or '%.0f s', ms / 1000) end

-- Milliseconds until the next attempt, as backoff.ts has it; 0 where the job was given none. The clock's microseconds are
-- chance enough, a step further for each job.
local drawn = tonumber(time[2])
local function backoff_of(given, count)
  if not given then return 0 end
  local backoff = cjson.decode(given)
  local growth = backoff.type == 'fixed' and 1 or 2 ^ math.min(count - 1, 40)
  local plain = math.min(backoff.delayMs * growth, backoff.maxMs)
  drawn = drawn + 7919
  local ms = math.floor(plain * (1 + backoff.jitter * (drawn % 1000 / 1000 - 0.5)) + 0.5)
  if ms > backoff.maxMs then ms = 2 * backoff.maxMs - ms end
  return ms
end

-- The state it comes to, in how many milliseconds it may run, and the end of the sentence. `count` of `allowed` failures
-- or crashes have been.
local function fate(job, what, count, allowed, backoff)
  if has(job, 'x') then return 'CANCELLED', 0, 'A cancel had been requested: the job is cancelled.' end
  local spent = what .. ' ' .. int(count) .. ', and ' .. int(allowed) .. ' are allowed'
  if count > allowed then return 'FAILED', 0, 'The job has failed: ' .. spent .. '.' end
  local delayMs = backoff_of(backoff, count)
  local attempt = 'Attempt ' .. int(tonumber(job.attempt) + 1)
  if delayMs == 0 then return 'QUEUED', 0, attempt .. ' is queued; ' .. spent .. '.' end
  return 'SCHEDULED', delayMs, attempt .. ' follows in ' .. seconds(delayMs) .. '; ' .. spent .. '.'
end
