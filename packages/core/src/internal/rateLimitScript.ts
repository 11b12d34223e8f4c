/**
 * `tokenBucket.ts` in Lua, so that a step is atomic between processes. Read the two side by side.
 *
 * The whole state of a key is one MessagePack value that Redis forgets once the bucket has long been
 * full. Time is the server's unless the caller gives one.
 */
import * as Redis from "effect/persistence/Redis"

/** The command, our bounds as `[capacity, rate, capacity, rate]` with "" for none, and the command's own words. */
type Parameters = [
  key: string,
  now: string,
  bounds: ReadonlyArray<string>,
  command: string,
  words: ReadonlyArray<string>
]

export const script: Redis.Script<{ params: Parameters; result: ReadonlyArray<string> }> = Redis.script(
  (...[key, now, bounds, command, words]: Parameters) => [key, now, ...bounds, command, ...words],
  {
    numberOfKeys: 1,
    lua: `
local epsilon, grace, memory, idle = 1e-6, 1000, 32, 600000
local now = tonumber(ARGV[1])
if now == nil then
  local time = redis.call("TIME")
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local names = { "requests", "tokens" }
local bounds = {
  requests = tonumber(ARGV[2]) and { capacity = tonumber(ARGV[2]), rate = tonumber(ARGV[3]) } or nil,
  tokens = tonumber(ARGV[4]) and { capacity = tonumber(ARGV[4]), rate = tonumber(ARGV[5]) } or nil
}
local command = ARGV[6]
local function word(n) return ARGV[6 + n] end
local function number(n) return tonumber(ARGV[6 + n]) end
local function show(value) return string.format("%.17g", value) end

local stored = redis.call("GET", KEYS[1])
local state = stored and cmsgpack.unpack(stored) or { at = now, ticket = 0, claims = {} }

local function open(level, floor)
  return { level = level, rate = 0, closedUntil = 0, floor = floor, highs = {} }
end
local function capacityOf(name)
  local bound, limit = bounds[name], state[name].limit
  return math.min(bound and bound.capacity or math.huge, limit or math.huge)
end
local function rateOf(name)
  local bound, limit = bounds[name], state[name].limit
  if not bound then return state[name].rate end
  return math.min(bound.rate, (limit or math.huge) / 60000)
end
local function nextTicket()
  state.ticket = math.max(state.ticket + 1, now * 1000)
  return state.ticket
end

local elapsed = math.max(0, now - state.at)
state.at = math.max(state.at, now)
for _, name in ipairs(names) do
  if bounds[name] and not state[name] then state[name] = open(bounds[name].capacity, 0) end
  local dimension = state[name]
  if dimension then
    dimension.level = math.min(capacityOf(name), dimension.level + elapsed * rateOf(name))
  end
end
local living = {}
for _, claim in ipairs(state.claims) do
  if claim["until"] > now then table.insert(living, claim) end
end
state.claims = living

local function withdraw(id)
  local kept = {}
  for _, claim in ipairs(state.claims) do
    if claim.id ~= id then table.insert(kept, claim) end
  end
  state.claims = kept
end

local function debit(name, amount, ticket)
  local dimension = state[name]
  local highs = dimension.highs
  while #highs > 0 and highs[#highs][2] <= dimension.level do table.remove(highs) end
  table.insert(highs, { ticket, dimension.level })
  if #highs > memory then dimension.floor = math.max(dimension.floor, table.remove(highs, 1)[1]) end
  dimension.level = dimension.level - amount
end

local function credit(name, amount, ticket)
  local dimension = state[name]
  if ticket < dimension.floor then return end
  local high = dimension.level
  for _, entry in ipairs(dimension.highs) do
    if entry[1] > ticket then high = math.max(high, entry[2]) end
  end
  local given = math.max(0, math.min(amount, capacityOf(name) - high))
  dimension.level = dimension.level + given
  for _, entry in ipairs(dimension.highs) do
    if entry[1] > ticket then entry[2] = entry[2] + given end
  end
end

local function denied(name, amount, withAhead)
  local dimension = state[name]
  if not dimension or amount <= 0 then return nil end
  local missing = withAhead - dimension.level
  local closed = math.max(0, dimension.closedUntil - now)
  local tooLarge = amount > capacityOf(name) + epsilon
  if not tooLarge and missing <= epsilon and closed == 0 then return nil end
  local refill = missing <= epsilon and 0 or missing / rateOf(name)
  local retryAfter = tooLarge and math.huge or math.max(1, math.ceil(math.max(refill, closed)))
  return { dimension = name, retryAfter = retryAfter, closed = closed > 0 }
end

local result = {}
if command == "take" then
  local id, poll = word(3), tonumber(word(4)) or math.huge
  local amounts = { requests = number(1), tokens = number(2) }
  local ahead = { requests = amounts.requests, tokens = amounts.tokens }
  local place = nil
  for index, claim in ipairs(state.claims) do
    if claim.id == id then place = index break end
    ahead.requests = ahead.requests + claim.requests
    ahead.tokens = ahead.tokens + claim.tokens
  end
  local requests = denied("requests", amounts.requests, ahead.requests)
  local tokens = denied("tokens", amounts.tokens, ahead.tokens)
  local denial = tokens
  if requests and (not tokens or requests.retryAfter >= tokens.retryAfter) then denial = requests end
  if not denial then
    withdraw(id)
    local ticket = nextTicket()
    for _, name in ipairs(names) do
      if state[name] then debit(name, amounts[name], ticket) end
    end
    result = { "granted", show(ticket) }
  else
    local never = denial.retryAfter == math.huge
    if never then
      withdraw(id)
    elseif id ~= "" then
      local lapse = now + math.min(denial.retryAfter, poll) + grace
      local claim = { id = id, requests = amounts.requests, tokens = amounts.tokens, ["until"] = lapse }
      state.claims[place or (#state.claims + 1)] = claim
    end
    result = {
      "denied", denial.dimension, never and "" or show(denial.retryAfter), denial.closed and "closed" or ""
    }
  end
elseif command == "settle" then
  local ticket = number(1)
  for index, name in ipairs(names) do
    local difference = number(2 * index) - number(2 * index + 1)
    if state[name] and difference > 0 then
      credit(name, difference, ticket)
    elseif state[name] and difference < 0 then
      debit(name, -difference, nextTicket())
    end
  end
elseif command == "withdraw" then
  withdraw(word(1))
elseif command == "observe" then
  local maxClosed = tonumber(word(7)) or math.huge
  for index, name in ipairs(names) do
    local limit, remaining, reset = number(3 * index - 2), number(3 * index - 1), number(3 * index)
    if not (limit and limit <= 0) and (state[name] or limit) then
      state[name] = state[name] or open(limit, nextTicket())
      local dimension = state[name]
      dimension.limit = limit or dimension.limit
      local whole = capacityOf(name)
      if reset and reset > 0 and remaining and remaining < whole then
        dimension.rate = (whole - remaining) / reset
      else
        dimension.rate = whole / 60000
      end
      dimension.level = math.min(dimension.level, whole)
      if remaining and remaining >= 0 and remaining < dimension.level then
        dimension.level = remaining
        dimension.floor = nextTicket()
        dimension.highs = {}
      end
      if remaining == 0 and reset and reset > 0 then
        dimension.closedUntil = math.max(dimension.closedUntil, now + math.min(reset, maxClosed))
      end
    end
  end
else
  for _, name in ipairs(names) do
    local dimension = state[name]
    if dimension then
      local closed = dimension.closedUntil > now and show(dimension.closedUntil) or ""
      table.insert(result, show(capacityOf(name)))
      table.insert(result, show(dimension.level))
      table.insert(result, closed)
    else
      for _ = 1, 3 do table.insert(result, "") end
    end
  end
  return result
end

local keep = idle
for _, name in ipairs(names) do
  local dimension = state[name]
  if dimension then
    local missing, rate = capacityOf(name) - dimension.level, rateOf(name)
    if missing > 0 and rate > 0 then keep = math.max(keep, missing / rate + idle) end
    keep = math.max(keep, dimension.closedUntil - now + idle)
  end
end
redis.call("SET", KEYS[1], cmsgpack.pack(state), "PX", string.format("%d", math.min(keep, 2592000000)))
return result
`
  }
).withReturnType<ReadonlyArray<string>>()
