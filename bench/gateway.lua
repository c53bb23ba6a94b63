-- What wrk asks of the gateway, or of upstream itself.
--   wrk ... -s gateway.lua URL -- KIND TASKS SEED TOKEN
-- KIND `submission`: each has a prompt of its own, and a callback URL. `look-up`: about one of TASKS tasks.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  local token = args[4]
  kind, tasks = args[1], tonumber(args[2])
  math.randomseed(tonumber(args[3]) * 1000 + number)
  run, sent = args[3] .. "-" .. number .. "-", 0
  head = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nUser-Agent: python-requests/2.32.3\r\nAccept: application/json\r\nAuthorization: Bearer " .. token
    .. "\r\nContent-Type: application/json\r\nContent-Length: "
end

function request()
  local body
  if kind == "look-up" then
    body = string.format('{"action": "retrieve", "id": "00000000-feed-4bee-8bad-%012d"}', math.random(0, tasks - 1))
  else
    sent = sent + 1
    body = '{"action": "generate", "mode": "fast", "callback_url": "https://app.example.com/hooks/midjourney",'
      .. ' "prompt": "a lighthouse at dusk, ' .. run .. sent .. '"}'
  end
  return head .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"seconds": %f, "p50": %f, "p99": %f, "requests": %d, "errors": %d}\n',
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.requests,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
