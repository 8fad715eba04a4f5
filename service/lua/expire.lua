-- Ends queued jobs past their deadline; returns the finished jobs whose result is due.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now)) do
    if redis.call('HGET', JOB .. id, 'status') == 'queued' then
        finish(id, 'expired', '')
    end
    redis.call('ZREM', DEADLINES, id)
end
return redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 1000)
