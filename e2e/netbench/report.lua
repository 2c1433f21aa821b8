-- What wrk measured, as a line of JSON: requests and MB a second, latencies in
-- microseconds, and requests that failed.
done = function(summary, latency, requests)
   local s = summary.duration / 1e6
   local e = summary.errors
   io.write(string.format('{"rate":%.1f,"mb":%.1f,"p50":%.0f,"p99":%.0f,"failed":%d}\n',
      summary.requests / s, summary.bytes / s / 1e6, latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
