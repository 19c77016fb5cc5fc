-- Say that a worker process has gone.
call('DEL', PREFIX .. 'worker:' .. worker)
call('ZREM', PREFIX .. 'workers', worker)
return { 'ok' }
