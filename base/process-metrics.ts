import { readdirSync } from "node:fs";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";

/** Makes one metric without labels; an undefined value is left out of the scrape. */
type Register = (
  name: string,
  help: string,
  type: "counter" | "gauge",
  value: () => number | undefined,
) => void;

/** What every process tells about itself, under the names Prometheus' client libraries have agreed on. */
export function registerProcessMetrics(register: Register): void {
  const started = Date.now() / 1000 - process.uptime();
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  let utilization = performance.eventLoopUtilization();

  register("process_start_time_seconds", "When the process started, since 1970.", "gauge", () => started);
  register("process_cpu_user_seconds_total", "CPU time in user mode.", "counter", () => cpuSeconds("user"));
  register("process_cpu_system_seconds_total", "CPU time in the kernel.", "counter", () =>
    cpuSeconds("system"),
  );
  register("process_resident_memory_bytes", "Resident memory.", "gauge", () => process.memoryUsage.rss());
  register("process_open_fds", "Open file descriptors.", "gauge", openDescriptors);
  register(
    "nodejs_heap_size_used_bytes",
    "JavaScript heap in use.",
    "gauge",
    () => process.memoryUsage().heapUsed,
  );
  register("nodejs_external_memory_bytes", "Memory of buffers, outside of the heap.", "gauge", () => {
    return process.memoryUsage().external;
  });
  register(
    "nodejs_eventloop_utilization_ratio",
    "Share of the time since the last scrape the event loop was busy.",
    "gauge",
    () => {
      const now = performance.eventLoopUtilization();
      const { utilization: share } = performance.eventLoopUtilization(now, utilization);
      utilization = now;
      return share;
    },
  );
  register(
    "nodejs_eventloop_lag_max_seconds",
    "Longest the event loop stood still since the last scrape.",
    "gauge",
    () => {
      const longest = delay.max / 1e9;
      delay.reset();
      return longest;
    },
  );
}

function cpuSeconds(mode: "user" | "system"): number {
  return process.cpuUsage()[mode] / 1e6;
}

/** Undefined where there is no /proc. */
function openDescriptors(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}
