#!lua name=fanline_aggregates

-- Time series; readmodels/aggregates.py documents their layout. Values carry the token of their writer
-- (functions/documents.lua): whoever has the later token asked the database later.

local STATE = 'state'

local function newer(a, b)
  return struct.unpack('>I8', a) > struct.unpack('>I8', b)
end

local function set(key, token, values, first)
  for at = first, #values, 2 do
    local current = redis.call('HGET', key, values[at])
    if not current or not newer(current, token) then
      redis.call('HSET', key, values[at], token .. values[at + 1])
    end
  end
end

-- Places the marker of a build where no series is. KEYS[1]: the series. ARGV: token, seconds after which an abandoned
-- build is forgotten. Returns 1 if this call placed it.
redis.register_function('aggregate_begin', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 1 then return 0 end
  redis.call('HSET', keys[1], STATE, 'B' .. args[1])
  redis.call('EXPIRE', keys[1], args[2])
  return 1
end)

-- Writes buckets of a series that is there. KEYS[1]: the series. ARGV: token, then bucket and counts in turn.
-- Returns 1 if it is there.
redis.register_function('aggregate_set', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then return 0 end
  set(keys[1], args[1], args, 2)
  return 1
end)

-- Ends a build: buckets that were written with a later token meanwhile stay. KEYS[1]: the series.
-- ARGV: token, Unix seconds at which the series expires, then bucket and counts in turn. Returns 1 if the build was ours.
redis.register_function('aggregate_end', function(keys, args)
  if redis.call('HGET', keys[1], STATE) ~= 'B' .. args[1] then return 0 end
  set(keys[1], args[1], args, 3)
  redis.call('HSET', keys[1], STATE, 'F')
  redis.call('EXPIREAT', keys[1], args[2])
  return 1
end)
