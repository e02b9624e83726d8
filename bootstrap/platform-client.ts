import http from "node:http";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** GET with a deadline; an answer of any status, or the reason why there is none. `host` is sent as the Host header. */
export function get(
  url: string,
  options: { readonly token?: string; readonly host?: string; readonly timeoutMs?: number } = {},
): Promise<Answer | string> {
  const headers: Record<string, string> = {};
  if (options.token !== undefined) headers["authorization"] = `Bearer ${options.token}`;
  if (options.host !== undefined) headers["host"] = options.host;
  return new Promise((resolve) => {
    const request = http.get(
      url,
      { headers, agent: false, timeout: options.timeoutMs ?? 5_000 },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => (body += text));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
        response.on("error", (error) => resolve(messageOf(error)));
      },
    );
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
    request.on("error", (error) => resolve(messageOf(error)));
  });
}

export async function isHealthy(url: string): Promise<boolean> {
  const answer = await get(url);
  return typeof answer === "object" && answer.status === 200;
}

/**
 * Asks again and again until `probe` gives undefined, which is success; a text says what is still missing.
 * Returns the last text when the time is over. `onChange` hears every new text once.
 */
export async function waitUntil(
  probe: () => Promise<string | undefined>,
  options: { readonly clock: Clock; readonly timeoutMs: number; readonly onChange?: (text: string) => void },
): Promise<string | undefined> {
  const { clock, timeoutMs, onChange } = options;
  const deadlineMs = clock.nowMs() + timeoutMs;
  for (let last: string | undefined; ;) {
    const missing = await probe();
    if (missing === undefined) return undefined;
    if (missing !== last) onChange?.(missing);
    last = missing;
    if (clock.nowMs() >= deadlineMs) return missing;
    await clock.sleep(200);
  }
}
