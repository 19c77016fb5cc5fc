-- End what is over its time, a bounded number a call: jobs that waited too long, and attempts that run too long though
-- their worker is alive. Answers id and outcome of each.
local answer = {}

local function judge_time(id)
  local job = read(id)
  local over = job and is_over(job)
  call('ZREM', DEADLINES, id)
  if not job then return end
  if job.state ~= 'PROCESSING' then
    if not over then return end
    expire(job)
    return job.state
  end
  MOVE = 'timeout'
  local set = {}
  local failure = '{"name":"TimedOut","code":"TIMED_OUT","message":"The attempt did not end in its time."}'
  job.failures = int(job.failures + 1)
  job.fence = '-'
  local more = failed(job, failure, set)
  if has(job, 'x') or tonumber(job.failures) < (job.options.maxAttempts or DEFAULTS.maxAttempts) then
    again(job, 0, more, set)
  else
    finish(job, 'FAILED', more, set)
  end
  return job.state
end

for _, id in ipairs(call('ZRANGEBYSCORE', DEADLINES, '-inf', AT, 'LIMIT', 0, count)) do
  local fine, outcome = pcall(judge_time, id)
  if not fine then outcome = 'error' end
  if outcome then
    answer[#answer + 1] = id
    answer[#answer + 1] = outcome
  end
end
drop_done()
return answer
