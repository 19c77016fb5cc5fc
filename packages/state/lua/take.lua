-- Claim up to `count` jobs of a name, the higher priorities first; one time in eight the lower ones come first, so that
-- they are never starved. Answers how long to wait where claims are stopped or limited; otherwise how many are granted, the
-- grants, then id and entry of each job that is broken: it stays in the worker's hands.
if paused(name) then return { 'paused' } end
local want = tonumber(count)
if present(max) then
  local free, waitMs = spare(rate_key(name), tonumber(max), tonumber(perMs))
  if free == 0 then return { 'wait', int(waitMs) } end
  want = math.min(want, free)
end
local turn = tonumber(time[2]) % 16
local queues = { name .. ':high', name, name .. ':low' }
if turn == 0 then
  queues = { name .. ':low', name, name .. ':high' }
elseif turn == 1 then
  queues = { name, name .. ':low', name .. ':high' }
end
local answer, size, started = { 'ok', '0' }, 2, 0
local broken = {}
for _, queue in ipairs(queues) do
  local work = PREFIX .. 'work:' .. queue
  -- Where somebody deleted the stream or its group the error says so, and there is nothing to take.
  local read_now = want > started and call('XLEN', work) > 0
    and redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', want - started, 'STREAMS', work, '>')
  for _, entry in ipairs(read_now and not read_now.err and read_now[1] and read_now[1][2] or {}) do
    -- One broken job must not cost the others their grants.
    local fine, job, createdAt, checkpoint, options = pcall(read_for_grant, entry[2][2])
    if fine and job and job.state == 'QUEUED' and job.place == entry[1] then
      local grant
      fine, grant =
        pcall(start, job, createdAt, checkpoint, options, worker, nonce, leaseMs, max, perMs, keyMax, keyPerMs)
      if fine and grant then
        started = started + 1
        for at = 1, GRANT_SIZE do answer[size + at] = grant[at] end
        size = size + GRANT_SIZE
      end
    elseif fine and job and job.state == 'PROCESSING' and job.place == entry[1] then
      -- Given out once more, since somebody deleted the group: it stays with who runs the job.
      call('XCLAIM', work, GROUP, job.worker, 0, entry[1], 'JUSTID')
    elseif fine then
      -- The job has ended, expired or been queued anew: the entry is a leftover.
      drop(queue, entry[1])
    end
    if not fine then
      broken[#broken + 1] = entry[2][2]
      broken[#broken + 1] = entry[1]
    end
  end
end
answer[2] = int(started)
for _, told in ipairs(broken) do
  size = size + 1
  answer[size] = told
end
return answer
