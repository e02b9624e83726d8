import http from "node:http";
import net from "node:net";
import { errnoOf, messageOf } from "../base/errors.ts";
import type { HealthCheck, RunSpec } from "../model/run-spec.ts";
import type { Driver } from "./driver.ts";
import { explainRefused } from "./explain.ts";

export interface CheckResult {
  readonly ok: boolean;
  /** Plain words: what was asked and what came back. */
  readonly detail: string;
}

export interface CheckFacts {
  readonly instanceId: string;
  readonly health: HealthCheck;
  /** Its connections begin with such a header. */
  readonly proxyProtocol: RunSpec["proxyProtocol"];
  readonly driver: Pick<Driver, "prepared" | "listeners" | "exec">;
  /** For `command`: where and how it runs. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
  /** No answer for this long is a failure, in milliseconds. */
  readonly timeoutMs: number;
}

/** PROXY headers of somebody who asks for himself, as Latin-1 (HAProxy, proxy-protocol.txt). */
const OWN_HEADERS = {
  v1: "PROXY UNKNOWN\r\n",
  v2: "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
} as const;

/** Asks the instance once whether it is ready; never throws. */
export async function checkHealth(facts: CheckFacts): Promise<CheckResult> {
  const { health, driver, instanceId } = facts;
  if (health.kind === "none") return { ok: true, detail: "" };
  if (health.kind === "command") return checkCommand(facts, health.command);
  const prepared = driver.prepared(instanceId);
  if (prepared?.address === undefined) return { ok: true, detail: "" }; // It listens nowhere: nothing to ask.
  const { address, bindHost } = prepared;
  const header = facts.proxyProtocol === undefined ? "" : OWN_HEADERS[facts.proxyProtocol];
  const result =
    health.kind === "http"
      ? await checkHttp(address, health.path, facts.timeoutMs, header)
      : await checkTcp(address, facts.timeoutMs, header);
  if (!("refused" in result)) return result;
  return { ok: false, detail: explainRefused(address, bindHost, await driver.listeners(instanceId)) };
}

type Answer = CheckResult | { readonly refused: true };

function checkHttp(
  { host, port }: { host: string; port: number },
  path: string,
  timeoutMs: number,
  header: string,
): Promise<Answer> {
  const asked = `GET ${path} on port ${port}`;
  return new Promise((resolve) => {
    const request = http.get(
      {
        host,
        port,
        path,
        // With an agent, Node does not ask for a connection.
        ...(header === "" ? { agent: false } : { createConnection: () => connectWith(header, host, port) }),
        headers: { host: `localhost:${port}`, "user-agent": "gilliam-health" },
      },
      (response) => {
        const status = response.statusCode ?? 0;
        let body = "";
        response.on("data", (bytes: Buffer) => {
          if (body.length < 200) body += bytes.toString("utf8");
        });
        response.on("error", () => undefined);
        response.on("close", () => {
          const ok = status >= 200 && status < 400;
          const quote = oneLine(body);
          resolve({
            ok,
            detail: ok ? "" : `${asked} answered ${status}${quote === "" ? "" : `: "${quote}"`}`,
          });
        });
      },
    );
    const deadline = AbortSignal.timeout(timeoutMs);
    deadline.addEventListener("abort", () => {
      resolve({ ok: false, detail: `${asked} did not answer within ${timeoutMs} ms` });
      request.destroy();
    });
    request.on("error", (error) => resolve(explainError(error, asked)));
  });
}

function connectWith(header: string, host: string, port: number): net.Socket {
  const socket = net.connect({ host, port });
  socket.write(header, "latin1");
  return socket;
}

function checkTcp(
  { host, port }: { host: string; port: number },
  timeoutMs: number,
  header: string,
): Promise<Answer> {
  const asked = `connecting to port ${port}`;
  return new Promise((resolve) => {
    const socket = net.connect({ host, port });
    socket.setTimeout(timeoutMs, () => {
      resolve({ ok: false, detail: `${asked} took longer than ${timeoutMs} ms` });
      socket.destroy();
    });
    socket.on("connect", () => {
      resolve({ ok: true, detail: "" });
      if (header !== "") socket.write(header, "latin1");
      socket.destroySoon();
    });
    socket.on("error", (error) => resolve(explainError(error, asked)));
  });
}

async function checkCommand(facts: CheckFacts, command: string): Promise<CheckResult> {
  let output = "";
  const { instanceId, folder, environment, timeoutMs } = facts;
  try {
    const code = await facts.driver.exec({
      instanceId,
      folder,
      environment,
      command: ["/bin/sh", "-c", command],
      signal: AbortSignal.timeout(timeoutMs),
      onOutput: (_stream, bytes) => {
        if (output.length < 1000) output += bytes.toString("utf8");
      },
    });
    const quote = oneLine(output);
    return {
      ok: code === 0,
      detail: code === 0 ? "" : `"${command}" exited with code ${code}${quote === "" ? "" : `: "${quote}"`}`,
    };
  } catch (error) {
    return { ok: false, detail: `"${command}" could not be run: ${messageOf(error)}` };
  }
}

function explainError(error: Error, asked: string): Answer {
  if (errnoOf(error) === "ECONNREFUSED") return { refused: true };
  return { ok: false, detail: `${asked} failed: ${messageOf(error)}` };
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim().slice(0, 160);
}
