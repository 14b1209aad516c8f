#!lua name=fanline_inbox

-- A person's inbox, a sorted set; readmodels/inbox.py documents it. A Lua number cannot hold a 64-bit id and string
-- comparison follows the server's locale, so ids are compared as two 32-bit halves.

local HEADER_SCORE = -1

local function less(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  if a_high ~= b_high then return a_high < b_high end
  return a_low < b_low
end

-- The upper 48 bits of an id, its milliseconds.
local function score(id)
  return string.format('%.0f', (struct.unpack('>I6', id)))
end

local function header_of(key)
  return redis.call('ZRANGE', key, 0, 0)[1]
end

local function replace(key, old, new)
  if old == new then return end
  -- In this order: a set that becomes empty loses its time to live.
  redis.call('ZADD', key, HEADER_SCORE, new)
  redis.call('ZREM', key, old)
end

local function find(key, id)
  local ms = score(id)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, ms, ms)) do
    if string.sub(member, 1, 8) == id then return member end
  end
  return nil
end

-- Places the marker of a fill, so that changes from now on are noticed.
-- KEYS[1]: the inbox. ARGV: token (8 bytes), seconds after which an abandoned fill is forgotten.
-- Returns 1 if this call placed it, 0 if the inbox is there or somebody else fills it.
redis.register_function('inbox_begin', function(keys, args)
  local header = header_of(keys[1])
  if header and string.sub(header, 1, 1) ~= 'D' then return 0 end
  redis.call('DEL', keys[1])
  redis.call('ZADD', keys[1], HEADER_SCORE, 'B' .. args[1])
  redis.call('EXPIRE', keys[1], args[2])
  return 1
end)

-- Ends a fill. KEYS[1]: the inbox. ARGV: token, header, seconds to live, members.
-- Returns 1 if it is filled, 0 if the fill is to begin again or is somebody else's.
redis.register_function('inbox_fill', function(keys, args)
  local header = header_of(keys[1])
  if header ~= 'B' .. args[1] then return 0 end
  replace(keys[1], header, args[2])
  for at = 4, #args do redis.call('ZADD', keys[1], score(args[at]), args[at]) end
  redis.call('EXPIRE', keys[1], args[3])
  return 1
end)

-- Applies what rows are now. KEYS[1]: the inbox. ARGV: marker (8 bytes, or empty if it has not changed), cap, slack,
-- number of ids to remove, these ids, members to add. Returns 1 if the inbox is there.
redis.register_function('inbox_apply', function(keys, args)
  local key, header = keys[1], header_of(keys[1])
  if not header then return 0 end
  if string.sub(header, 1, 1) ~= 'F' then
    -- What is being read from the database may be older than this change.
    replace(key, header, 'D' .. string.sub(header, 2))
    return 0
  end
  local floor, marker = string.sub(header, 2, 9), string.sub(header, 10, 17)
  if args[1] ~= '' then marker = args[1] end
  local removed = tonumber(args[4])
  for at = 5, 4 + removed do
    local member = find(key, args[at])
    if member then redis.call('ZREM', key, member) end
  end
  for at = 5 + removed, #args do
    local id = string.sub(args[at], 1, 8)
    if less(floor, id) then
      local member = find(key, id)
      if member and member ~= args[at] then redis.call('ZREM', key, member) end
      redis.call('ZADD', key, score(id), args[at])
    end
  end
  local cap = tonumber(args[2])
  local excess = redis.call('ZCARD', key) - 1 - cap
  if excess > tonumber(args[3]) then
    floor = string.sub(redis.call('ZRANGE', key, excess, excess)[1], 1, 8)
    redis.call('ZREMRANGEBYRANK', key, 1, excess)
  end
  replace(key, header, 'F' .. floor .. marker)
  return 1
end)
