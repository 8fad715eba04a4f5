-- The windows of a job to send now, and whether they go on the interactive queue.
local id, at_least = ARGV[1], tonumber(ARGV[2])
local status = redis.call('HGET', JOB .. id, 'status')
if not status or final(status) then
    return {'0'}
end
return {redis.call('HGET', JOB .. id, 'interactive'), unpack(send_more(id, at_least))}
