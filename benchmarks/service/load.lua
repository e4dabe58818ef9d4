-- wrk … -s load.lua URL -- BODIES: sends the lines of a file in turn as JSON, and prints its figures as one line of JSON.
--
-- There is no response(): with one, wrk parses the headers of every answer in Lua and becomes the bottleneck. It counts
-- the statuses above 399 by itself, and the answers were compared with scikit-learn's before. wrk corrects latencies for
-- coordinated omission.

local threads = 0

function setup(thread)
  thread:set("first", threads * 97)
  threads = threads + 1
end

function init(args)
  requests, count, at = {}, 0, first
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    count = count + 1
    requests[count] = wrk.format("POST", nil, nil, line)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'figures {"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %.1f, "p90_us": %.1f, "p99_us": %.1f, '
      .. '"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
