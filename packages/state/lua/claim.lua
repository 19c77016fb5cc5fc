-- Start an attempt of a job whose work entry was delivered to the worker. The nonce, one per worker, makes the fence: a
-- claim repeated by the same worker, its reply lost, is the same grant.
local job, createdAt, checkpoint, options = read_for_grant(id)
if not job then return rejected('unknown_job') end
if job.state == 'PROCESSING' and job.fence == job.attempt .. '-' .. nonce then
  return { 'ok', job.cursor, job.state, unpack(granted(job, createdAt, checkpoint, options)) }
end
if job.state == 'PROCESSING' and job.worker == worker and job.place == entry then
  -- Another process of the same name has, or had, it. It is out of our hands: what is in them counts as heard of with us.
  call('XCLAIM', PREFIX .. 'work:' .. queue_of(job), GROUP, 'reaper', 0, entry, 'JUSTID')
end
if job.state ~= 'QUEUED' then return rejected('illegal', job.state) end
-- Another entry than the job's own is a leftover; the reaper sweeps those.
if job.place ~= entry then return rejected('stale_entry', job.state) end
local work = PREFIX .. 'work:' .. queue_of(job)
-- Refused for now. The worker asks again within a second, and as long as it does the entry is fresh in its hands: the
-- reaper leaves it there, and the job keeps its place.
local function not_yet(...)
  call('XCLAIM', work, GROUP, worker, 0, entry, 'JUSTID')
  return { 'rejected', ... }
end
if paused(job.name) then return not_yet('paused', job.state) end
if present(max) then
  local free, waitMs = spare(rate_key(job.name), tonumber(max), tonumber(perMs))
  if free == 0 then return not_yet('rate_limited', job.state, int(waitMs)) end
end
local grant, refused = start(job, createdAt, checkpoint, options, worker, nonce, leaseMs, max, perMs, keyMax, keyPerMs)
if not grant then return refused end
-- A job that was put back and read by another is ours now in the pending list too.
call('XCLAIM', work, GROUP, worker, 0, entry, 'JUSTID')
return { 'ok', job.cursor, job.state, unpack(grant) }
