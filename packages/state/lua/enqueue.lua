-- Create the job, to run now or after a delay. The same id, name and payload again is the same job.
local found = call('HMGET', key('job', args.id), 'state', 'name', 'payload', 'cursor')
if found[1] then
  if found[2] == args.name and found[3] == payload then return { 'ok', found[4], found[1], 'repeat' } end
  return rejected('conflict', found[1])
end
local job = { id = args.id, name = args.name, attempt = '0' }
local state = args.delayMs > 0 and 'SCHEDULED' or 'QUEUED'
local runAt = args.delayMs > 0 and int(NOW + args.delayMs) or ''
-- A stream that outlived its hash would refuse seq 1.
call('DEL', key('jobs', job.id))
enter(
  job,
  state,
  ',"name":' .. text(job.name) .. ',"maxAttempts":' .. int(args.maxAttempts) .. ',"maxCrashes":' .. int(args.maxCrashes)
    .. (runAt ~= '' and ',"runAt":' .. runAt or ''),
  {
    'name', job.name, 'payload', payload, 'attempt', '0', 'failures', '0', 'crashes', '0',
    'maxAttempts', int(args.maxAttempts), 'maxCrashes', int(args.maxCrashes), 'retentionMs', int(args.retentionMs),
    'createdAt', int(NOW), 'runAt', runAt,
  }
)
if state == 'SCHEDULED' then
  call('ZADD', args.prefix .. 'scheduled', runAt, job.id)
else
  push(job)
end
return ok(job)
