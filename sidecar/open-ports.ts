import { spawn } from "node:child_process";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import { type RawHandle, bindTcp } from "../proxy/agent/handles.ts";
import type { HelperMessage } from "./namespace-helper.ts";

/** A bound socket of one local port. */
export interface BoundPort {
  readonly host: "127.0.0.1" | "::1";
  readonly port: number;
  readonly handle: RawHandle;
}

export interface NamespaceOptions {
  readonly clock: Clock;
  /** What the helper may see of the environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** Milliseconds until the helper is given up. @default 10_000 */
  readonly timeoutMs?: number;
}

/**
 * Binds `ports` on 127.0.0.1, and on ::1 where there is one, inside the network namespace at `path`.
 * All or none: on failure what was bound is closed again.
 * @throws UserError `port_taken`, `address_unknown`, `namespace_failed` or `namespace_timeout`.
 */
export async function openInNamespace(
  path: string,
  ports: readonly number[],
  { clock, environment, timeoutMs = 10_000 }: NamespaceOptions,
): Promise<BoundPort[]> {
  const helper = spawn(
    "nsenter",
    [
      `--net=${path}`,
      process.execPath,
      join(import.meta.dirname, "namespace-helper.ts"),
      ...ports.map(String),
    ],
    { env: { ...environment }, stdio: ["ignore", "ignore", "pipe", "ipc"] },
  );
  const bound: BoundPort[] = [];
  const finished = Promise.withResolvers<void>();
  let complaint = "";
  helper.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-500);
  });
  helper.on("message", (message: HelperMessage, handle: unknown) => {
    if (message.kind === "bound") {
      const { host, port } = message;
      bound.push({ host: host === "::1" ? "::1" : "127.0.0.1", port, handle: handle as RawHandle });
    } else if (message.kind === "done") finished.resolve();
    else finished.reject(helperError(path, message));
  });
  helper.on("error", (error) => finished.reject(namespaceError(path, error.message)));
  helper.on("exit", (code, signal) => {
    finished.reject(
      namespaceError(path, complaint.trim() || `the helper ended with ${signal ?? String(code)}`),
    );
  });
  using _limit = clock.after(timeoutMs, () => {
    helper.kill("SIGKILL");
    finished.reject(
      new UserError(`Opening ports in ${path} took longer than ${timeoutMs / 1000} s`, {
        code: "namespace_timeout",
        status: 504,
        next: "Try again; the machine seems to be overloaded.",
      }),
    );
  });
  try {
    await finished.promise;
    return bound;
  } catch (error) {
    for (const { handle } of bound) handle.close();
    throw error;
  }
}

function helperError(path: string, { message, code }: { message: string; code: string }): UserError {
  return new UserError(`${message} (in network namespace ${path})`, {
    code,
    status: 409,
    next: "The process may not listen on the local ports of its own dependencies.",
  });
}

function namespaceError(path: string, reason: string): UserError {
  return new UserError(`Cannot enter network namespace ${path}: ${reason}`, {
    code: "namespace_failed",
    status: 409,
    next: "The sidecar needs CAP_SYS_ADMIN and nsenter (package util-linux), and the namespace must exist.",
  });
}

/**
 * A port of the host's own loopback: `wanted` when given, else one that is free on 127.0.0.1 and on ::1, where
 * there is one. Where another process owns [::1] of the wanted port, 127.0.0.1 alone has to do.
 * @throws UserError `port_taken`, `no_free_port`.
 */
export function openOnLoopback(wanted: number | undefined): BoundPort[] {
  const attemptsMax = wanted === undefined ? 50 : 1;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const four = bindTcp({ host: "127.0.0.1", port: wanted ?? 0 });
    const { port } = four.address;
    const bound: BoundPort[] = [{ host: "127.0.0.1", port, handle: four.handle }];
    try {
      return [...bound, { host: "::1", port, handle: bindTcp({ host: "::1", port }).handle }];
    } catch (error) {
      const taken = error instanceof UserError && error.code === "port_taken";
      if (!taken || wanted !== undefined) return bound;
      four.handle.close();
    }
  }
  throw new UserError("No port is free on the loopback address", { code: "no_free_port", status: 503 });
}
