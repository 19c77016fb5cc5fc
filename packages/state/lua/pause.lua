-- Stop claims of a job name, or of every name ('*'). What runs goes on.
call('SADD', PREFIX .. 'paused', name)
return { 'ok' }
