#!lua name=fanline_readiness

-- KEYS[1]: a key of readiness. ARGV: expected value, new value. Returns 1 if the expected value was there.
redis.register_function('ready_set', function(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then return 0 end
  redis.call('SET', keys[1], args[2])
  return 1
end)
