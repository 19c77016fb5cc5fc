-- Start an attempt. The nonce makes the fence, so a repeated claim whose reply got lost is the same grant.
local function grant(job)
  local data = call('HMGET', key('job', job.id), 'payload', 'createdAt', 'maxAttempts')
  return ok(job, job.fence, job.attempt, job.failures, data[3], data[2], data[1])
end

local current = read(args.id)
if current and current.state == 'PROCESSING' and current.fence == current.attempt .. '-' .. args.nonce then
  return grant(current)
end
local job, rejection = judge(args.id)
if not job then return rejection end
-- Another entry than the job's own is a leftover; the reaper sweeps those.
if job.entry ~= args.entry then return rejected('stale_entry', job.state) end
job.attempt = int(tonumber(job.attempt) + 1)
job.fence = job.attempt .. '-' .. args.nonce
enter(job, 'PROCESSING', ',"worker":' .. text(args.worker), {
  'attempt', job.attempt, 'fence', job.fence, 'worker', args.worker, 'op', '0', 'leaseMs', int(args.leaseMs),
  'startedAt', int(NOW), 'progress', '',
})
call('SET', key('heartbeat', job.id), job.fence .. ' ' .. args.worker, 'PX', int(args.leaseMs))
-- A job that was put back and read by another is ours now in the pending list too.
call('XCLAIM', key('work', job.name), GROUP, args.worker, 0, job.entry, 'JUSTID')
return grant(job)
