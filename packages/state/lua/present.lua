-- Say that a worker process is there. `about` is JSON of schema/worker.ts.
call('SET', PREFIX .. 'worker:' .. worker, about, 'PX', ttlMs)
call('ZREMRANGEBYSCORE', PREFIX .. 'workers', '-inf', AT)
call('ZADD', PREFIX .. 'workers', int(NOW + tonumber(ttlMs)), worker)
outlive(PREFIX .. 'workers', tonumber(ttlMs))
return { 'ok' }
