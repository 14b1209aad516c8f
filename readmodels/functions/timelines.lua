#!lua name=fanline_timelines

-- Lists of entries behind a header; readmodels/entries.py documents both. A Lua number cannot hold a 64-bit id
-- and string comparison follows the server's locale, so ids are compared as two 32-bit halves.

local NO_FLOOR = '\0\0\0\0\0\0\0\0'
local NEW_RECENT = 'F' .. NO_FLOOR .. NO_FLOOR

local function less(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  if a_high ~= b_high then return a_high < b_high end
  return a_low < b_low
end

local function greatest(a, b)
  if less(a, b) then return b end
  return a
end

local function floor_of(header)
  if string.sub(header, 1, 1) == 'B' then return string.sub(header, 10, 17) end
  return string.sub(header, 2, 9)
end

local function with_floor(header, floor)
  if string.sub(header, 1, 1) == 'B' then return string.sub(header, 1, 9) .. floor .. string.sub(header, 18) end
  return 'F' .. floor .. string.sub(header, 10)
end

local function push(key, entries)
  for from = 1, #entries, 1000 do
    redis.call('RPUSH', key, unpack(entries, from, math.min(from + 999, #entries)))
  end
end

-- The upper 48 bits of an id, its milliseconds, which a Lua number holds.
local function rank(entry)
  return (struct.unpack('>I6', entry))
end

-- The greatest id of a rank, as bytes.
local function last_of(ranked)
  return struct.pack('>I6I2', ranked, 65535)
end

-- Removes duplicates among the list's entries and the given ones, keeps the newest `cap` (more where ranks are equal) and
-- raises the floor over what was cut. LTRIM and LSET keep the key, and so its time to live.
local function rewrite(key, header, more, first_more, cap)
  local floor, seen, entries, ranks = floor_of(header), {}, {}, {}
  local function take(entry)
    local id = string.sub(entry, 1, 8)
    if seen[id] then return end
    seen[id] = true
    entries[#entries + 1] = entry
    ranks[#ranks + 1] = rank(entry)
  end
  for _, entry in ipairs(redis.call('LRANGE', key, 1, -1)) do take(entry) end
  for at = first_more, #more do take(more[at]) end
  local kept = entries
  if #entries > cap then
    local sorted = {}
    for at, ranked in ipairs(ranks) do sorted[at] = ranked end
    table.sort(sorted)
    local oldest = sorted[#sorted - cap + 1]
    kept = {}
    for at, entry in ipairs(entries) do
      if ranks[at] >= oldest then kept[#kept + 1] = entry end
    end
    if #kept < #entries then floor = greatest(floor, last_of(oldest - 1)) end
  end
  redis.call('LTRIM', key, 0, 0)
  redis.call('LSET', key, 0, with_floor(header, floor))
  push(key, kept)
end

-- Cuts a list that has grown past cap + slack. Entries arrive nearly in order, so cutting the oldest arrivals is
-- enough, as long as it does not raise the floor past the middle of what stays.
local function compact(key, cap)
  local header = redis.call('LINDEX', key, 0)
  if not header then return 0 end
  local excess = redis.call('LLEN', key) - 1 - cap
  if excess <= 0 then return 0 end
  local newest, take = 0, struct.unpack
  local oldest_arrivals = redis.call('LRANGE', key, 1, excess)
  for at = 1, excess do
    -- `rank`, without a call: this loop is what a cut costs.
    local ranked = take('>I6', oldest_arrivals[at])
    if ranked > newest then newest = ranked end
  end
  local middle = redis.call('LINDEX', key, -math.max(1, math.floor(cap / 2)))
  if newest < rank(middle) then
    redis.call('LTRIM', key, excess, -1)
    redis.call('LSET', key, 0, with_floor(header, greatest(floor_of(header), last_of(newest))))
  else
    rewrite(key, header, {}, 1, cap)
  end
  return excess
end

-- KEYS[1]: a timeline. ARGV[1]: cap. Returns how many entries were in excess.
redis.register_function('timeline_compact', function(keys, args)
  return compact(keys[1], tonumber(args[1]))
end)

-- Places the marker of a build, so that pushes are kept from now on.
-- KEYS[1]: a timeline. ARGV: token, generation (8 bytes each), seconds after which an abandoned build is forgotten.
-- Returns 1 if this call placed it.
redis.register_function('timeline_begin', function(keys, args)
  local header = redis.call('LINDEX', keys[1], 0)
  if header and string.sub(header, -8) == args[2] then return 0 end
  redis.call('DEL', keys[1])
  redis.call('RPUSH', keys[1], 'B' .. args[1] .. NO_FLOOR .. args[2])
  redis.call('EXPIRE', keys[1], args[3])
  return 1
end)

-- Ends a build: merges the database's entries with those pushed meanwhile.
-- KEYS[1]: a timeline. ARGV: token, floor (8 bytes), cap, seconds to live, entries. Returns 1 if the build was still ours.
redis.register_function('timeline_merge', function(keys, args)
  local header = redis.call('LINDEX', keys[1], 0)
  if not header or string.sub(header, 1, 9) ~= 'B' .. args[1] then return 0 end
  local floor = greatest(floor_of(header), args[2])
  rewrite(keys[1], 'F' .. floor .. string.sub(header, 18), args, 5, tonumber(args[3]))
  redis.call('EXPIRE', keys[1], args[4])
  return 1
end)

-- Merges an author's recent list into a warm timeline. KEYS[1]: a timeline. ARGV: the recent list's floor, cap, entries.
-- Returns 1 if the timeline is warm.
redis.register_function('timeline_backfill', function(keys, args)
  local header = redis.call('LINDEX', keys[1], 0)
  if not header then return 0 end
  rewrite(keys[1], with_floor(header, greatest(floor_of(header), args[1])), args, 3, tonumber(args[2]))
  return 1
end)

-- Adds a post to its author's own recent list, then tells how it is to be spread.
-- KEYS: the recent list, the author's follower facts. ARGV: entry, cap, slack. Returns {state, chunks}.
redis.register_function('recent_add', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then redis.call('RPUSH', keys[1], NEW_RECENT) end
  local length = redis.call('RPUSH', keys[1], args[1]) - 1
  if length > tonumber(args[2]) + tonumber(args[3]) then compact(keys[1], tonumber(args[2])) end
  local facts = redis.call('HMGET', keys[2], 'state', 'chunks')
  return {facts[1] or 'push', tonumber(facts[2] or '1')}
end)

-- Merges the database's newest entries into an author's recent list, made if it is not there.
-- KEYS[1]: the recent list. ARGV: floor, cap, entries.
redis.register_function('recent_restore', function(keys, args)
  local header = redis.call('LINDEX', keys[1], 0)
  if not header then
    header = NEW_RECENT
    redis.call('RPUSH', keys[1], header)
  end
  rewrite(keys[1], with_floor(header, greatest(floor_of(header), args[1])), args, 3, tonumber(args[2]))
  return 1
end)
