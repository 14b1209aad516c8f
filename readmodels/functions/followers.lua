#!lua name=fanline_followers

-- An author's followers: a hash of facts (KEYS[1]) and chunks of 16-byte follower ids under KEYS[1]:<index>.
-- Chunks grow by linear hashing (Litwin 1980): one chunk is split at a time, and an index never goes away.

local function hash(follower)
  return struct.unpack('>I4', string.sub(follower, 13, 16))
end

local function index_of(follower, chunks)
  local round = 1
  while round * 2 <= chunks do round = round * 2 end
  local index = hash(follower) % round
  if index < chunks - round then index = hash(follower) % (round * 2) end
  return index
end

local function find(chunk, follower)
  local from = 1
  while true do
    local at = string.find(chunk, follower, from, true)
    if not at then return nil end
    if (at - 1) % 16 == 0 then return at end
    from = at + 1
  end
end

local function store(key, chunk)
  if #chunk == 0 then redis.call('DEL', key) else redis.call('SET', key, chunk) end
end

local function split(key, chunks)
  local round = 1
  while round * 2 <= chunks do round = round * 2 end
  local source = key .. ':' .. (chunks - round)
  local chunk = redis.call('GET', source) or ''
  local stay, move = {}, {}
  for at = 1, #chunk, 16 do
    local follower = string.sub(chunk, at, at + 15)
    if hash(follower) % (round * 2) == chunks then move[#move + 1] = follower else stay[#stay + 1] = follower end
  end
  store(source, table.concat(stay))
  store(key .. ':' .. chunks, table.concat(move))
  redis.call('HSET', key, 'chunks', chunks + 1)
end

-- Whether a change lies behind the last one that its partition has shown this author; if not, it is the last one now.
-- Rows of one COPY or transaction share a position, so an equal one is applied again, which changes nothing. Zeros are
-- those of a fact of now, which always applies. A Lua number cannot hold 64 bits: positions are compared in 32-bit parts.
local function is_behind(key, partition, position)
  local p1, p2, p3, p4 = struct.unpack('>I4I4I4I4', position)
  if p1 + p2 + p3 + p4 == 0 then return false end
  local field = 'last' .. partition
  local last = redis.call('HGET', key, field)
  if last then
    local l1, l2, l3, l4 = struct.unpack('>I4I4I4I4', last)
    local behind = p4 < l4
    if p1 ~= l1 then behind = p1 < l1
    elseif p2 ~= l2 then behind = p2 < l2
    elseif p3 ~= l3 then behind = p3 < l3 end
    if behind then return true end
  end
  redis.call('HSET', key, field, position)
  return false
end

-- KEYS[1]: the author's facts. ARGV: follower, 1 to add or 0 to remove, partition, position (16), chunk capacity.
-- Returns {changed, followers, state, behind}: 1 if the change lies behind the partition's last one, and did nothing.
redis.register_function('follower_apply', function(keys, args)
  local key, follower, add = keys[1], args[1], args[2] == '1'
  local changed = 0
  local behind = is_behind(key, args[3], args[4])
  if not behind then
    local facts = redis.call('HMGET', key, 'chunks', 'followers')
    local chunks, followers = tonumber(facts[1] or '1'), tonumber(facts[2] or '0')
    local chunk_key = key .. ':' .. index_of(follower, chunks)
    local chunk = redis.call('GET', chunk_key) or ''
    local at = find(chunk, follower)
    if add and not at then
      redis.call('SET', chunk_key, chunk .. follower)
      changed, followers = 1, followers + 1
      redis.call('HSET', key, 'followers', followers)
      if followers > chunks * tonumber(args[5]) then split(key, chunks) end
    elseif at and not add then
      store(chunk_key, string.sub(chunk, 1, at - 1) .. string.sub(chunk, at + 16))
      changed = 1
      redis.call('HSET', key, 'followers', followers - 1)
    end
  end
  local facts = redis.call('HMGET', key, 'followers', 'state')
  return {changed, tonumber(facts[1] or '0'), facts[2] or 'push', behind and 1 or 0}
end)

-- Takes every occurrence of some bytes out of one chunk, and counts the author's followers anew.
-- KEYS[1]: the author's facts. ARGV: index, follower. Returns how many were taken out.
redis.register_function('follower_drop', function(keys, args)
  local key = keys[1]
  local chunk_key = key .. ':' .. args[1]
  local chunk, kept, dropped = redis.call('GET', chunk_key) or '', {}, 0
  for at = 1, #chunk, 16 do
    local follower = string.sub(chunk, at, at + 15)
    if follower == args[2] then dropped = dropped + 1 else kept[#kept + 1] = follower end
  end
  store(chunk_key, table.concat(kept))
  local bytes = 0
  for index = 0, tonumber(redis.call('HGET', key, 'chunks') or '1') - 1 do
    bytes = bytes + redis.call('STRLEN', key .. ':' .. index)
  end
  redis.call('HSET', key, 'followers', math.floor(bytes / 16))
  return dropped
end)

-- KEYS[1]: the author's facts. ARGV: expected state, new state. Returns 1 if the state was as expected.
redis.register_function('followers_state', function(keys, args)
  local state = redis.call('HGET', keys[1], 'state') or 'push'
  if state ~= args[1] then return 0 end
  redis.call('HSET', keys[1], 'state', args[2])
  return 1
end)

-- Removes an author's facts and chunks. KEYS[1]: the author's facts. Returns 1 if there were any.
redis.register_function('followers_forget', function(keys)
  for index = 0, tonumber(redis.call('HGET', keys[1], 'chunks') or '1') - 1 do
    redis.call('UNLINK', keys[1] .. ':' .. index)
  end
  return redis.call('UNLINK', keys[1])
end)

-- One chunk and the number of chunks, at one moment. KEYS[1]: the author's facts. ARGV[1]: index.
redis.register_function{
  function_name = 'followers_chunk',
  callback = function(keys, args)
    return {redis.call('GET', keys[1] .. ':' .. args[1]) or '', tonumber(redis.call('HGET', keys[1], 'chunks') or '1')}
  end,
  flags = {'no-writes'},
}
