-- Ends a job as failed or canceled.
return finish(ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
