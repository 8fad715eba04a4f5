-- Windows to send again, as (job, window, interactive) in a row. Marks them, so two reconcilers never both send.
-- A window that was begun is stale when its lease is not renewed; one that waits in a long queue may wait, and
-- is sent again after twice as long each time, so that a backlog does not fill with copies.
local lease, at_least = tonumber(ARGV[1]), tonumber(ARGV[2])
local again = {}
local function send(id, window, interactive)
    again[#again + 1] = id
    again[#again + 1] = window
    again[#again + 1] = interactive
end
for _, id in ipairs(redis.call('ZRANGE', ACTIVE, 0, -1)) do
    local interactive = redis.call('HGET', JOB .. id, 'interactive')
    if not interactive then
        redis.call('ZREM', ACTIVE, id)  -- its keys ended by themselves
        redis.call('ZREM', QUEUED, id)
    else
        local windows = WINDOWS .. id
        for _, window in ipairs(redis.call('ZRANGEBYSCORE', FLIGHT .. id, '-inf', now - lease)) do
            local begun = redis.call('HEXISTS', windows, window .. ':lease') == 1
            local sends = number(windows, window .. ':sends')
            local beat = tonumber(redis.call('ZSCORE', FLIGHT .. id, window))
            if begun or now - beat >= lease * 2 ^ math.min(sends, 6) then
                redis.call('HSET', windows, window .. ':sends', sends + 1)
                redis.call('HDEL', windows, window .. ':lease')
                redis.call('ZADD', FLIGHT .. id, now, window)
                send(id, window, interactive)
            end
        end
        -- Whoever created the job, or committed its last window, died before it could send more.
        if redis.call('ZCARD', FLIGHT .. id) == 0 and tonumber(redis.call('ZSCORE', ACTIVE, id)) < now - 2 then
            for _, window in ipairs(send_more(id, at_least)) do
                send(id, window, interactive)
            end
        end
    end
end
return again
