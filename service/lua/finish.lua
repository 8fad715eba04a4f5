-- Ends a job as failed or canceled; where a window and a token are given, only in the name of its lease.
if ARGV[4] and redis.call('HGET', WINDOWS .. ARGV[1], ARGV[4] .. ':lease') ~= ARGV[5] then
    return 0
end
return finish(ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
