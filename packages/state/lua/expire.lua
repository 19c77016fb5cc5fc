-- End what is over its time, a bounded number a call: jobs that waited too long, and attempts that run too long though
-- their worker is alive. Answers id and outcome of each.
local deadlines = PREFIX .. 'deadlines'
local answer = {}

local function judge_time(id)
  call('ZREM', deadlines, id)
  local job = read(id)
  if not job then return end
  if job.state ~= 'PROCESSING' then
    local expiresAt = call('HGET', job_key(id), 'expiresAt')
    if not expiresAt or tonumber(expiresAt) > NOW then return end
    expire(job)
    return job.state
  end
  MOVE = 'timeout'
  local failure = '{"name":"TimedOut","code":"TIMED_OUT","message":"The attempt did not end in its time."}'
  local failures = int((tonumber(job.failures) or 0) + 1)
  local maxAttempts = tonumber(call('HGET', job_key(id), 'maxAttempts') or '') or DEFAULTS.maxAttempts
  local set = { 'error', failure, 'failures', failures, 'fence', '' }
  if present(job.cancel) or tonumber(failures) < maxAttempts then
    again(job, 0, ',"error":' .. failure, set)
  else
    finish(job, 'FAILED', ',"error":' .. failure, set)
  end
  return job.state
end

for _, id in ipairs(call('ZRANGEBYSCORE', deadlines, '-inf', AT, 'LIMIT', 0, count)) do
  local fine, outcome = pcall(judge_time, id)
  if not fine then outcome = 'error' end
  if outcome then
    answer[#answer + 1] = id
    answer[#answer + 1] = outcome
  end
end
return answer
