#!lua name=fanline_trends

-- How often and by how many accounts a hashtag was used on a day.
-- KEYS[1]: the day's sorted set. Returns the number of members, and of different first 16 bytes among them.
redis.register_function{
  function_name = 'trend_use',
  callback = function(keys)
    local members = redis.call('ZRANGE', keys[1], 0, -1)
    local seen, accounts = {}, 0
    for _, member in ipairs(members) do
      local account = string.sub(member, 1, 16)
      if not seen[account] then
        seen[account] = true
        accounts = accounts + 1
      end
    end
    return {#members, accounts}
  end,
  flags = {'no-writes'},
}
