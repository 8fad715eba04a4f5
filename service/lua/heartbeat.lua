-- Renews leases, given as (job, window, token) in a row; the jobs whose window must stop.
local stop = {}
for index = 1, #ARGV, 3 do
    local id, window, token = ARGV[index], ARGV[index + 1], ARGV[index + 2]
    if redis.call('HGET', JOB .. id, 'status') == 'running'
        and redis.call('HGET', WINDOWS .. id, window .. ':lease') == token then
        redis.call('ZADD', FLIGHT .. id, now, window)
    else
        stop[#stop + 1] = id
    end
end
return stop
