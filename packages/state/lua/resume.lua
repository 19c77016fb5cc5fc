-- End a pause; workers ask again every second.
call('SREM', PREFIX .. 'paused', name)
return { 'ok' }
