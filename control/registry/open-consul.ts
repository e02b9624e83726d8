import { readFileSync, renameSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { equalJitterMs } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { readDurable, writeDurableLater } from "../../base/durable-file.ts";
import { UserError, errnoOf, messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { ConsulClient } from "./consul-client.ts";
import { ConsulRegistry } from "./consul.ts";
import { EmbeddedRegistry } from "./embedded.ts";

export interface ConsulSettings {
  readonly consulUrl: string;
  readonly consulTokenFile: string;
  readonly consulDatacenter: string;
  readonly consulPrefix: string;
  readonly consulCa: string;
  readonly consulCert: string;
  readonly consulKey: string;
}

export interface Surroundings {
  /** Control's own folder: an embedded registry that was used before, and the copy that is kept of this one. */
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly newId: () => string;
}

const BACKOFF = { baseMs: 500, capMs: 10_000 };
const COPY_MS = 30_000;

/** @throws UserError "bad_settings" with every problem */
export function consulClient(settings: ConsulSettings): ConsulClient {
  const problems: string[] = [];
  const url = URL.parse(settings.consulUrl);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    problems.push(`GILLIAM_CONSUL_URL must be like "http://127.0.0.1:8500"; it is "${settings.consulUrl}"`);
  }
  if (!/^[a-z0-9._-]{1,100}$/.test(settings.consulPrefix)) {
    problems.push(
      `GILLIAM_CONSUL_PREFIX must be a-z, 0-9, dot, dash or underscore; it is "${settings.consulPrefix}"`,
    );
  }
  const pem = (name: string, path: string) => {
    if (path === "") return undefined;
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      problems.push(`${name}: cannot read ${path}: ${errnoOf(error) ?? messageOf(error)}`);
      return undefined;
    }
  };
  const ca = pem("GILLIAM_CONSUL_CA", settings.consulCa);
  const cert = pem("GILLIAM_CONSUL_CERT", settings.consulCert);
  const key = pem("GILLIAM_CONSUL_KEY", settings.consulKey);
  if (problems.length > 0) {
    throw new UserError("Control cannot use Consul: its settings are wrong", {
      code: "bad_settings",
      problems,
    });
  }
  return new ConsulClient({
    url: settings.consulUrl,
    token: () => tokenIn(settings.consulTokenFile),
    ...(settings.consulDatacenter === "" ? {} : { datacenter: settings.consulDatacenter }),
    tls: { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) },
  });
}

/** Read before every call: a new token counts without a restart. One that cannot be read is none, and Consul says so. */
function tokenIn(path: string): string {
  if (path === "") return "";
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}

/**
 * Opens the registry in Consul, however long it takes until that can be reached: what waits is told to `onTrouble`.
 * A Consul that has no registry yet gets what this control knows: from its own copy of before, or from the embedded
 * registry that this machine used so far.
 */
export async function openConsul(
  client: ConsulClient,
  { prefix, onTrouble }: { prefix: string; onTrouble: (error: UserError | undefined) => void },
  around: Surroundings,
): Promise<ConsulRegistry> {
  const { clock, random, log, newId, folder } = around;
  const embedded = join(folder, "registry.db");
  const copy = join(folder, "consul-copy.json");
  for (let attempt = 0; ; attempt++) {
    try {
      const registry = await ConsulRegistry.open({
        client,
        prefix,
        clock,
        random,
        newId,
        onNews: (text) => log.warn(text),
        seed: async () => copyIn(copy, prefix) ?? (await entriesIn(embedded, clock)),
      });
      onTrouble(undefined);
      moveAway(embedded, log);
      keepCopy(registry, copy, prefix, around);
      return registry;
    } catch (error) {
      if (!(error instanceof UserError) || error.code !== "registry_unavailable") throw error;
      if (attempt === 0) log.error({ error: error.message }, "control waits for Consul");
      onTrouble(error);
      await clock.sleep(equalJitterMs(attempt, BACKOFF, random));
    }
  }
}

type Records = readonly { readonly key: string; readonly value: unknown }[];

function copyIn(path: string, prefix: string): Records | undefined {
  const read = readDurable(path);
  if (read.kind !== "read") return undefined;
  const copy = read.value as { prefix?: string; entries?: Records };
  return copy.prefix === prefix ? copy.entries : undefined;
}

async function entriesIn(path: string, clock: Clock): Promise<Records> {
  try {
    readFileSync(path);
  } catch {
    return [];
  }
  const registry = new EmbeddedRegistry({ path, clock });
  try {
    return (await registry.list("")).entries;
  } finally {
    await registry.close();
  }
}

/** It has been taken over; under its old name it would be taken for newer than it is. */
function moveAway(path: string, log: Log): void {
  try {
    renameSync(path, `${path}.moved-to-consul`);
    log.warn(`the embedded registry has been moved to Consul; the file is now ${path}.moved-to-consul`);
  } catch {
    return; // There was none.
  }
}

/** What a wiped Consul is filled from when no control was running at that moment. */
function keepCopy(
  registry: ConsulRegistry,
  path: string,
  prefix: string,
  { clock, log }: Surroundings,
): void {
  let kept = -1;
  clock.every(COPY_MS, () => {
    const { entries, revision } = registry.known();
    if (revision === kept || entries.length === 0) return;
    kept = revision;
    writeDurableLater(path, { prefix, entries }).catch((error: unknown) =>
      log.warn({ error: messageOf(error) }, "the copy of the registry cannot be written"),
    );
  });
}

/** Answers while the registry cannot be opened: alive, so that nobody restarts it, and able to do nothing else. */
export async function openWaitingRoom(
  { host, port, version }: { host: string; port: number; version: string },
  trouble: () => UserError | undefined,
): Promise<Disposable> {
  const server = http.createServer((request, response) => {
    const isHealth = request.url === "/v1/health";
    const error = trouble();
    const body = isHealth
      ? { status: "ok", version }
      : {
          type: "about:blank",
          title: "registry_unavailable",
          status: 503,
          code: "registry_unavailable",
          detail: error?.message ?? "The registry is being opened",
          next: error?.next ?? "Try again in a moment.",
          problems: [],
        };
    response.writeHead(isHealth ? 200 : 503, {
      "content-type": isHealth ? "application/json" : "application/problem+json",
      connection: "close",
    });
    response.end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => {
    server.once("error", () => resolve()); // The port is taken: control itself says so when it listens.
    server.listen(port, host, resolve);
  });
  return {
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
