-- Lets the batch whose items were just committed commit its users.
-- KEYS[1]  where a user shard keeps the pass of a batch's first partition; ARGV[1] the pass
redis.call('SET', KEYS[1], ARGV[1])
return 1
