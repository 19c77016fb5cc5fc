-- Replace the attempt's progress. `op` counts the attempt's reports, so a repeated one is told from a new one.
local job, rejection = judge(args.id)
if not job then return rejection end
if args.op <= tonumber(job.op) then return repeated(job) end
commit(
  job,
  '"type":"progress","attempt":' .. job.attempt .. ',"progress":' .. payload,
  { 'progress', payload, 'op', int(args.op) },
  true
)
return ok(job)
