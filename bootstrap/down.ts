import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf, UserError } from "../base/errors.ts";
import { removeTree } from "../base/remove-tree.ts";
import { isEmpty, removeLeftovers } from "./leftovers.ts";
import { executorRuns, lockState } from "./lock.ts";
import type { DownOptions } from "./options.ts";
import { isHealthy } from "./platform-client.ts";
import { inspectState, type PlatformFile, readToken } from "./state-folder.ts";

interface Surroundings {
  readonly clock: Clock;
  readonly say: (line: string) => void;
}

/** How long the executor may take to stop everything; the longest grace period of a service is below it. */
const SHUTDOWN_MS_MAX = 120_000;
/** Without a word from the executor for this long it is taken for hung. */
const SILENT_MS_MAX = 45_000;

/** Stops everything of the state folder, through the executor when it answers, by force when it does not. */
export async function down({ state, purge }: DownOptions, around: Surroundings): Promise<void> {
  const { clock, say } = around;
  if (!existsSync(state)) {
    say(`Nothing to stop: there is no state folder ${state}`);
    return;
  }
  const { platform } = inspectState(state);
  using _lock = await lockState(state, say);
  let stopped = false;
  if (platform !== undefined && executorRuns(state)) {
    say("Stopping every instance, then the platform …");
    const problem = await shutDown(platform.executorUrl, readToken(state, "host-token"), say);
    if (problem === undefined) await waitForExecutor(state, clock);
    else say(`The executor could not do it (${problem}); stopping everything by force`);
    stopped = problem === undefined;
  }
  const left = await removeLeftovers(state, clock, stopped ? () => undefined : say);
  if (!isEmpty(left)) {
    throw new UserError("Something is left that could not be removed", {
      code: "leftovers",
      problems: [
        ...left.processes.map(({ pid, command }) => `process ${pid}: ${command}`),
        ...left.namespaces.map((name) => `network namespace ${name}`),
        ...left.links.map((name) => `network link ${name}`),
        ...left.groups.map((path) => `control group ${path}`),
      ],
      next: "Run bootstrap/down as the user who brought Gilliam up, root if that was root",
    });
  }
  if (platform?.consul !== undefined) await leaveCatalog(state, platform, say);
  if (purge) {
    removeTree(state);
    say(`Gilliam is down; ${state} is deleted`);
    return;
  }
  say(
    platform === undefined
      ? "Gilliam was not running"
      : `Gilliam is down. Releases and volumes stay in ${state}: bootstrap/up brings them back, --purge deletes them`,
  );
}

/** Nothing of this host runs any more, and nobody is left to say so to Consul's users. */
async function leaveCatalog(
  state: string,
  { consul, hostId }: PlatformFile,
  say: (line: string) => void,
): Promise<void> {
  if (consul === undefined) return;
  const tokenFile = join(state, "consul/token");
  try {
    const answer = await fetch(`${consul.url}/v1/catalog/deregister`, {
      method: "PUT",
      headers: existsSync(tokenFile) ? { "x-consul-token": readFileSync(tokenFile, "utf8").trim() } : {},
      body: JSON.stringify({
        Node: `${consul.prefix}-${hostId}`,
        ...(consul.datacenter ? { Datacenter: consul.datacenter } : {}),
      }),
      signal: AbortSignal.timeout(5_000),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  } catch (error) {
    say(
      `  Consul's catalog still shows this host (${messageOf(error)}); when it is up again, that is put right`,
    );
  }
}

/** Follows the executor's own shutdown; returns what went wrong, or undefined when it is done. */
async function shutDown(
  executorUrl: string,
  token: string,
  say: (line: string) => void,
): Promise<string | undefined> {
  // A hung one is found out at once, not after the silence that a long grace period may need.
  if (!(await isHealthy(`${executorUrl}/healthz`))) return "it does not answer";
  const timeout = new AbortController();
  const overall = AbortSignal.timeout(SHUTDOWN_MS_MAX);
  try {
    const response = await fetch(`${executorUrl}/v1/shutdown`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.any([timeout.signal, overall]),
    });
    if (!response.ok || response.body === null) return `it answered ${response.status}`;
    let done = false;
    let rest = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const silent = AbortSignal.timeout(SILENT_MS_MAX);
      const onSilent = () => timeout.abort(new Error(`silent for ${SILENT_MS_MAX / 1000} s`));
      silent.addEventListener("abort", onSilent, { once: true });
      const part = await reader.read();
      silent.removeEventListener("abort", onSilent);
      if (part.done) break;
      const lines = (rest + part.value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines.filter((text) => text.trim() !== "")) {
        const message = JSON.parse(line) as { kind?: string; text?: string };
        if (message.kind === "progress") say(`  ${message.text ?? ""}`);
        if (message.kind === "done") done = true;
      }
    }
    return done ? undefined : "it broke off";
  } catch (error) {
    return messageOf(error);
  }
}

async function waitForExecutor(state: string, clock: Clock): Promise<void> {
  const pidFile = join(state, "supervise", "pid");
  for (let tries = 0; tries < 50; tries += 1) {
    const supervised = existsSync(pidFile) && existsSync(`/proc/${readFileSync(pidFile, "utf8").trim()}`);
    if (!supervised && !executorRuns(state)) return;
    await clock.sleep(100);
  }
}
