-- End what is over its time, a bounded number a call: jobs that waited too long, and attempts that run too long, or report
-- nothing, though their worker is alive. With `skip`, a number, nothing is written: it tells those after so many.
-- Answers how many it looked at, then id, outcome, what people are told and the cause of each that is over its time.
local told_only = present(skip) ~= nil

-- When the attempt is over its time, and whether it is its silence that counts. Its worker ends it, if it can; the reaper
-- comes a lease later. What an attempt reports leaves its time in the cursor: nobody moves its deadline, it is looked up.
local function over_at(job)
  local startedAt, leaseMs = run_of(job)
  local ends = job.options.timeoutMs and startedAt + job.options.timeoutMs + leaseMs
  local heard = tonumber(match(job.cursor, '%-(%d+)$')) + job.options.stallMs + leaseMs
  if ends and ends <= heard then return ends, false end
  return heard, true
end

local function end_attempt(job, stalled)
  local options = job.options
  local limit = stalled and options.stallMs or options.timeoutMs
  local failure = stalled
    and '{"name":"Stalled","code":"STALLED","message":"The attempt reported nothing for longer than it may."}'
    or '{"name":"TimedOut","code":"TIMED_OUT","message":"The attempt did not end in its time."}'
  spend_budget(job, 1, 0)
  job.fence = job.attempt .. '-'
  local failures = budgets(job)
  -- The last failure that is allowed ends the job.
  local allowed = (options.maxAttempts or DEFAULTS.maxAttempts) - 1
  local state, delayMs, says = fate(job, 'failure', failures, allowed, options.backoff)
  says = 'Attempt ' .. job.attempt .. ' on worker ' .. job.worker
    .. (stalled and ' reported nothing for ' or ' did not end within ')
    .. (limit and seconds(limit) or 'its time') .. '. ' .. says
  local cause = stalled and 'stalled' or 'timed_out'
  if told_only then return state, says, cause end
  local more = failed(job, failure) .. ',"message":' .. text(says)
  if state == 'FAILED' then finish(job, 'FAILED', more) else again(job, delayMs, more) end
  return state, says, cause
end

local function judge_time(id)
  local job = read(id)
  local over = job and is_over(job)
  if job and job.state == 'PROCESSING' and job.options.stallMs then
    local at, stalled = over_at(job)
    if at > NOW then
      if not told_only then call('ZADD', DEADLINES, int(at), id) end
      return
    end
    if not told_only then call('ZREM', DEADLINES, id) end
    MOVE = 'timeout'
    return end_attempt(job, stalled)
  end
  if not told_only then call('ZREM', DEADLINES, id) end
  if not job then return end
  if job.state == 'PROCESSING' then
    MOVE = 'timeout'
    return end_attempt(job, false)
  end
  if not over then return end
  local waited = 'Nobody took the job within the ' .. seconds(job.options.ttlMs) .. ' that it was worth.'
  if told_only then return 'FAILED', waited, 'expired' end
  expire(job, ',"message":' .. text(waited))
  return job.state, waited, 'expired'
end

local due = call('ZRANGEBYSCORE', DEADLINES, '-inf', AT, 'LIMIT', present(skip) or '0', count)
local answer = { int(#due) }
for _, id in ipairs(due) do
  local fine, outcome, says, cause = pcall(judge_time, id)
  if not fine then
    outcome, says = 'error', type(outcome) == 'table' and outcome.err or tostring(outcome)
    -- It must not hold up the others for ever; repair brings its deadline back when the job can be read.
    if not told_only then call('ZREM', DEADLINES, id) end
  end
  if outcome then
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = id, outcome, says, cause or ''
  end
end
drop_done()
return answer
