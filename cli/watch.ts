import { UserError } from "../base/errors.ts";
import { parseDurationMs } from "../base/units.ts";
import type { FormationView, InstanceView, ServiceView } from "../model/api.ts";
import type { Context } from "./context.ts";
import { printable } from "./output/style.ts";
import { runSteps } from "./steps.ts";
import { usageError } from "./usage-error.ts";

/** How often control is asked while something settles. */
const POLL_MS = 400;
/** Control restarts within seconds; only beyond this does its absence end a wait. */
const AWAY_MS_MAX = 60_000;
/** A service that fails this long will not mend itself; the first crashes of a start may. */
const FAILING_MS_MAX = 20_000;
const RESTARTS_MAX = 3;
const TIMEOUT_DEFAULT = "10m";

export interface WaitOptions {
  /** Services that must be ready; absent: all of them. */
  readonly services?: readonly string[];
  /** Milliseconds; then the wait ends with an error and the change goes on. */
  readonly timeoutMs: number;
  /** Said when it fails, like "Release 5 does not become ready". */
  readonly failure: string;
  /** What is done about it by hand. */
  readonly next?: string;
}

/** `--timeout 5m` in milliseconds. */
export function timeoutOf(text: string | undefined): number {
  const timeoutMs = parseDurationMs(text ?? TIMEOUT_DEFAULT);
  if (timeoutMs === undefined) throw usageError(`--timeout must be like "90s" or "5m"; it is "${text}"`);
  return timeoutMs;
}

/**
 * Waits, with progress, until what was asked for is in force and acknowledged by every proxy.
 * @throws UserError "not_ready" when a service fails for good, or when the time is over.
 */
export async function waitUntilSettled(
  context: Context,
  name: string,
  options: WaitOptions,
): Promise<FormationView> {
  let result: FormationView | undefined;
  await runSteps(context, [
    {
      title: `Waiting for ${name}`,
      run: async (report) => {
        result = await poll(context, name, options, report);
        return `${name} is settled`;
      },
    },
  ]).catch((error: unknown) => {
    if (context.shell.signal.aborted)
      context.note("No longer waiting; it goes on without this command. See: gilliam status");
    throw error;
  });
  if (result === undefined) throw new Error("a step ended without its result");
  return result;
}

async function poll(
  context: Context,
  name: string,
  { services, timeoutMs, failure, next }: WaitOptions,
  report: (text: string) => void,
): Promise<FormationView> {
  const { clock, signal } = context.shell;
  const startMs = clock.nowMs();
  const failingSince = new Map<string, number>();
  let lastHeardMs = startMs;
  for (;;) {
    const view = await formationIfThere(context, name);
    if (view instanceof UserError) {
      if (clock.nowMs() - lastHeardMs > AWAY_MS_MAX) throw view;
      report(`${view.message}; waiting for it`);
      await clock.sleep(POLL_MS, signal);
      continue;
    }
    lastHeardMs = clock.nowMs();
    const meant = view.services.filter(
      (service) => services === undefined || services.includes(service.name),
    );
    const open = meant.filter((service) => !isSettled(service));
    if (open.length === 0) return view;
    const nowMs = clock.nowMs();
    for (const { name, state } of meant) {
      if (state !== "failing") failingSince.delete(name);
      else if (!failingSince.has(name)) failingSince.set(name, nowMs);
    }
    report(open.map(progressLine).join("\n"));
    const suspects = open.filter(({ state }) => state === "failing");
    const instances = suspects.length === 0 ? [] : await context.client.call("instances", { name });
    const lost = suspects.filter((service) =>
      isLost(service, instances, nowMs - (failingSince.get(service.name) ?? nowMs)),
    );
    if (lost.length > 0) throw notReady(failure, lost, next, instances);
    if (nowMs - startMs > timeoutMs) {
      const late = `${failure} within ${Math.round(timeoutMs / 1000)} seconds`;
      throw notReady(late, open, "It goes on without this command. Watch it: gilliam status");
    }
    await clock.sleep(POLL_MS, signal);
  }
}

/** The formation, or the error while control is away. */
async function formationIfThere({ client }: Context, name: string): Promise<FormationView | UserError> {
  try {
    return await client.call("formation", { name });
  } catch (error) {
    if (error instanceof UserError && error.code === "control_unreachable") return error;
    throw error;
  }
}

function isSettled({ state }: ServiceView): boolean {
  return state === "ready" || state === "down";
}

/** Waiting longer will not help: the build failed, it crashes again and again, or it has failed for long. */
function isLost(
  { name, explanation }: ServiceView,
  instances: readonly InstanceView[],
  failingMs: number,
): boolean {
  if (/could not be built|refused epoch/.test(explanation)) return true;
  if (failingMs >= FAILING_MS_MAX) return true;
  return instances.some(
    (instance) =>
      instance.service === name && instance.phase !== "ready" && instance.restarts >= RESTARTS_MAX,
  );
}

/** Says for each service why, and what its failing instances wrote last. */
function notReady(
  failure: string,
  services: readonly ServiceView[],
  next: string | undefined,
  instances: readonly InstanceView[] = [],
): UserError {
  const lastLines = (service: string) =>
    instances.find(
      (instance) =>
        instance.service === service && instance.phase !== "ready" && instance.lastLines.length > 0,
    )?.lastLines ?? [];
  return new UserError(failure, {
    code: "not_ready",
    status: 500,
    problems: services.flatMap(({ name, explanation }) => [
      `${name}: ${printable(explanation)}`,
      ...lastLines(name).map((line) => `  │ ${printable(line)}`),
    ]),
    next,
  });
}

/** "web: 1 of 2 ready; web-… runs for 3s and does not answer". */
export function progressLine({ name, ready, wanted, state, explanation }: ServiceView): string {
  const amount = state === "down" ? "down" : wanted === 0 ? "stopping" : `${ready} of ${wanted} ready`;
  return `${name}: ${amount}${explanation === "" ? "" : `; ${printable(explanation)}`}`;
}
