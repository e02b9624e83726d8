import { randomUUID } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { UserError, errnoOf, messageOf } from "../base/errors.ts";
import { createLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { type Settings, readSettings } from "../base/settings.ts";
import { createControl } from "./control.ts";
import type { Log } from "../base/log.ts";
import { ConsulCatalog } from "./registry/consul-catalog.ts";
import { EmbeddedRegistry } from "./registry/embedded.ts";
import { consulClient, openConsul, openWaitingRoom } from "./registry/open-consul.ts";
import type { Registry } from "./registry/registry.ts";
import { controlSettings } from "./settings.ts";

/** The control process of one machine: `node control/main.ts`. Exit codes: 0 after SIGTERM, 1 on failure. */
async function main(): Promise<void> {
  const settings = readSettings("control", controlSettings, process.env);
  const log = createLog({ part: "control", level: settings.logLevel });
  const tokens = { admin: readToken(settings.state, "token"), host: readToken(settings.state, "host-token") };
  const folder = join(settings.state, "control");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { registry, catalog } = await openRegistry(settings, folder, log);
  const control = await createControl({
    settings,
    tokens,
    registry,
    ...(catalog === undefined ? {} : { catalog }),
    clock: systemClock,
    random: systemRandom,
    log,
    version: readVersion(),
  });
  await control.listen();
  log.info({ url: control.url, registry: registry.description }, "control listens");
  let stopping = false;
  const stop = (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, "control stops");
    control.close().then(
      () => process.exit(0),
      (error: unknown) => fail(error),
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

async function openRegistry(
  settings: Settings<typeof controlSettings>,
  folder: string,
  log: Log,
): Promise<{ registry: Registry; catalog?: ConsulCatalog }> {
  if (settings.consulUrl === "") {
    return { registry: new EmbeddedRegistry({ path: join(folder, "registry.db"), clock: systemClock }) };
  }
  const client = consulClient(settings);
  let trouble: UserError | undefined;
  using _room = await openWaitingRoom({ ...settings, version: readVersion() }, () => trouble);
  const around = { folder, clock: systemClock, random: systemRandom, log, newId: randomUUID };
  const onTrouble = (error: UserError | undefined) => {
    trouble = error;
  };
  const { consulPrefix: prefix } = settings;
  const registry = await openConsul(client, { prefix, onTrouble }, around);
  return { registry, catalog: new ConsulCatalog(client, prefix) };
}

function readToken(state: string, name: string): string {
  const path = join(state, name);
  let text: string;
  try {
    text = readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new UserError(`Control cannot read ${path}: ${errnoOf(error) ?? messageOf(error)}`, {
      code: "token_missing",
      next: "./bootstrap/up makes it; check GILLIAM_STATE and who owns the file.",
      cause: error,
    });
  }
  if (text.length >= 16) return text;
  throw new UserError(`The token in ${path} is shorter than 16 characters`, {
    code: "token_missing",
    next: "Put a long random text into it, or remove the file and run ./bootstrap/up.",
  });
}

function readVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Plain words on stderr, whole, then gone. */
function fail(error: unknown): void {
  if (error instanceof UserError) {
    const lines = [error.message, ...error.problems.map((text) => `- ${text}`), error.next ?? ""];
    process.stderr.write(`${lines.filter((text) => text !== "").join("\n")}\n`);
  } else {
    process.stderr.write(`Control failed: ${error instanceof Error ? error.stack : String(error)}\n`);
  }
  process.exit(1);
}

main().catch(fail);
