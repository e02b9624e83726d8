import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import http from "node:http";
import { hostname } from "node:os";
import { join, relative } from "node:path";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import { FormationView } from "../model/api.ts";
import { BootManifest } from "../model/boot.ts";
import { InstanceStatus } from "../model/instance.ts";
import { hostIdFrom } from "../model/names.ts";
import { bootManifest } from "./boot-manifest.ts";
import { warmCompileCache } from "./compile-cache.ts";
import { executorRuns, lockState } from "./lock.ts";
import { CONSUL_FILES, PORTS, type ConsulFlags, type PortName, type UpOptions } from "./options.ts";
import { installPrograms } from "./packages.ts";
import { get, isHealthy, waitUntil } from "./platform-client.ts";
import {
  copyPlatform,
  describePlatform,
  removeOtherPlatforms,
  type PlatformImage,
} from "./platform-image.ts";
import { choosePorts, type Ports } from "./ports.ts";
import {
  inspectState,
  keepConsulFiles,
  PLATFORM_UID,
  type PlatformFile,
  prepareState,
  readToken,
  writePlatformFile,
  writeWhole,
} from "./state-folder.ts";
import { prepareTls, tlsDifference } from "./tls.ts";

/** What `up` and `down` do not decide for themselves. */
export interface Surroundings {
  readonly clock: Clock;
  readonly root: string;
  readonly path: string;
  /** Proxies, certificate authorities and registries that builds need, and nothing else. */
  readonly buildEnvironment: Readonly<Record<string, string>>;
  /** 43 characters that nobody can guess. */
  readonly randomToken: () => string;
  /** Progress, for people; standard error. */
  readonly say: (line: string) => void;
}

/** How long the platform's parts may take to answer after a start, in milliseconds. */
const PLATFORM_MS_MAX = 60_000;
/** How long the formation may take to answer through the edge, builds included, in milliseconds. */
const FORMATION_MS_MAX = 180_000;
const LOG_BYTES_MAX = 10 * 1024 * 1024;

export interface UpResult {
  readonly platform: PlatformFile;
  readonly formation: FormationView | undefined;
}

/** Check, lock, choose, copy, start, deploy, wait. Nothing is changed before everything is checked. */
export async function up(options: UpOptions, around: Surroundings): Promise<UpResult> {
  const { state } = options;
  const formation = options.formation === undefined ? undefined : formationName(options.formation);
  const withPython = options.formation === join(around.root, "examples/shop");
  installPrograms({ isRoot: process.getuid?.() === 0, shop: withPython, path: around.path }, around.say);
  const before = inspectState(state);
  // The lock needs the folder; a new one gets its ports checked first, so that a refusal leaves nothing behind.
  if (!before.exists) await portsFor(options, undefined);
  prepareState(state, around.randomToken);
  using _lock = await lockState(state, around.say);

  const known = inspectState(state).platform;
  if (options.consul !== undefined) {
    await checkConsul(options.consul);
    keepConsulFiles(state, options.consul);
  }
  const platform =
    known !== undefined && executorRuns(state)
      ? await keepRunning(options, known, around)
      : await start(options, known, around);
  await waitForParts(state, platform, around);
  if (formation === undefined || options.formation === undefined) return { platform, formation: undefined };
  const view = await deployOnce(options.formation, formation, state, platform, around);
  return { platform, formation: view };
}

function formationName(folder: string): string {
  let text: string;
  try {
    text = readFileSync(join(folder, "gilliam.yaml"), "utf8");
  } catch {
    throw new UserError(`There is no gilliam.yaml in ${folder}`, {
      code: "no_manifest",
      next: "Name a folder with one: --formation DIR, or --formation none",
    });
  }
  const name = /^formation:\s*["']?([a-z0-9-]+)/m.exec(text)?.[1];
  if (name !== undefined) return name;
  throw new UserError(`${join(folder, "gilliam.yaml")} does not say \`formation: NAME\``, {
    code: "bad_manifest",
  });
}

/** Flags that contradict what runs are refused, not ignored; but another registry takes only a restart of control. */
async function keepRunning(
  options: UpOptions,
  platform: PlatformFile,
  around: Surroundings,
): Promise<PlatformFile> {
  const { say } = around;
  const different = (Object.entries(options.ports) as [PortName, number][]).filter(
    ([name, port]) => port !== 0 && port !== platform.ports[name],
  );
  const otherTls = tlsDifference(options.tls, platform.tls);
  const workers = platform.edgeWorkers ?? 1;
  const otherWorkers = options.edgeWorkers !== undefined && options.edgeWorkers !== workers;
  const otherAddress = options.isPublic && !platform.isPublic;
  if (different.length > 0 || otherTls !== undefined || otherWorkers || otherAddress) {
    throw new UserError("Gilliam runs already, with other settings", {
      code: "runs_already",
      problems: [
        ...different.map(([name]) => `--${PORTS[name].flag} is ${platform.ports[name]} now`),
        ...(otherTls === undefined ? [] : [otherTls]),
        ...(otherAddress ? ["the edge listens on 127.0.0.1 only"] : []),
        ...(otherWorkers ? [`--edge-workers is ${workers} now`] : []),
      ],
      next: "Run bootstrap/down first: what is deployed and stored stays",
    });
  }
  const consul = consulOf(options, platform);
  if (JSON.stringify(consul) !== JSON.stringify(platform.consul)) {
    const changed = { ...platform, ...(consul === undefined ? {} : { consul }) };
    say(
      `Moving the registry to Consul at ${consul?.url ?? ""}: control and executor are restarted, nothing else …`,
    );
    writeBoot(options.state, changed);
    writePlatformFile(options.state, changed);
    await restartExecutor(changed, options.state, around);
    return changed;
  }
  say(`Gilliam runs already, with its state in ${options.state}; nothing is changed`);
  return platform;
}

/** What was said before holds until something else is said. */
function consulOf({ consul }: UpOptions, known: PlatformFile | undefined): PlatformFile["consul"] {
  if (consul === undefined) return known?.consul;
  const { url, datacenter, prefix, files } = consul;
  const given = CONSUL_FILES.filter(
    (file) => files[file] !== undefined || known?.consul?.files.includes(file),
  );
  return { url, datacenter, prefix, files: given };
}

/** That somebody answers there. What the token may do, control finds out and says. */
async function checkConsul({ url, files }: ConsulFlags): Promise<void> {
  if (url.startsWith("https:") || files.ca !== undefined) return; // Control speaks TLS; we do not.
  const answer = await get(`${url}/v1/status/leader`);
  if (typeof answer === "object") return;
  throw new UserError(`Nothing answers as Consul at ${url}: ${answer}`, {
    code: "consul_away",
    next: "Check the address, and that Consul runs there: consul members. Nothing was changed",
  });
}

function writeBoot(state: string, file: PlatformFile): void {
  const { hostId, ports, isPublic, platform, consul, tls, edgeWorkers } = file;
  const boot = bootManifest({ state, hostId, ports, isPublic, platform, consul, tls, edgeWorkers });
  writeWhole(join(state, "boot.json"), `${JSON.stringify(BootManifest.parse(boot), null, 2)}\n`, 0o644);
}

/** It reads the boot manifest when it starts; supervise.sh starts it again at once, and it adopts what runs. */
async function restartExecutor(
  { executorUrl }: PlatformFile,
  state: string,
  { clock }: Surroundings,
): Promise<void> {
  const supervisor = Number(readFileSync(join(state, "supervise/pid"), "utf8"));
  const children = readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, "utf8").trim().split(" ");
  for (const pid of children.map(Number)) if (pid > 0 && isExecutor(pid)) process.kill(pid, "SIGKILL");
  await waitUntil(async () => ((await isHealthy(`${executorUrl}/healthz`)) ? "it to end" : undefined), {
    clock,
    timeoutMs: 5_000,
    onChange: () => undefined,
  });
}

function isExecutor(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("executor/main.ts");
  } catch {
    return false;
  }
}

function portsFor(options: UpOptions, known: PlatformFile | undefined): Promise<Ports> {
  const isPublic = options.isPublic || known?.isPublic === true;
  return choosePorts(options.ports, known?.ports, isPublic ? "0.0.0.0" : "127.0.0.1");
}

async function start(
  options: UpOptions,
  known: PlatformFile | undefined,
  around: Surroundings,
): Promise<PlatformFile> {
  const { state } = options;
  const { root, say } = around;
  // Without an executor its parts may still run, with their ports: they are adopted, so nobody else has them.
  const orphaned = known !== undefined && (await isHealthy(`${known.controlUrl}/v1/health`));
  const ports = orphaned ? known.ports : await portsFor(options, known);
  const isPublic = options.isPublic || known?.isPublic === true;
  const tls = await prepareTls(options, known, ports, orphaned, around.clock.wallMs());
  const edgeWorkers = options.edgeWorkers ?? known?.edgeWorkers;
  const image = describePlatform(root);
  say(`Copying the platform to ${join(state, "platform", image.hash)} …`);
  const folder = copyPlatform(root, state, image);
  if (!orphaned) removeOtherPlatforms(state, image.hash);
  const ownUid = process.getuid?.() ?? 0;
  const uid = ownUid === 0 ? PLATFORM_UID : ownUid;
  if (!warmCompileCache({ folder, node: nodeOf(root, folder), uid })) {
    say("  the compile cache could not be written: sidecar and edge start more slowly");
  }
  const platform = {
    ...describe(options, ports, isPublic, image, known),
    driver: await chooseDriver(options, known),
    dockerSocket: options.dockerSocket,
    ...(tls && { tls }),
    ...(edgeWorkers === undefined ? {} : { edgeWorkers }),
  };
  writeBoot(state, platform);
  writePlatformFile(state, platform);
  say("Starting the executor, control, the sidecar and the edge …");
  supervise(state, folder, platform, around);
  return platform;
}

/** What was chosen before stays: instances of the one driver are not adopted by the other. */
async function chooseDriver(
  { driver, dockerSocket }: UpOptions,
  known: PlatformFile | undefined,
): Promise<"process" | "docker"> {
  if (driver !== "auto") return driver;
  if (known !== undefined) return known.driver ?? "process";
  return process.getuid?.() === 0 && (await engineAnswers(dockerSocket)) ? "docker" : "process";
}

function engineAnswers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get({ socketPath, path: "/_ping", timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
  });
}

function describe(
  options: UpOptions,
  ports: Ports,
  isPublic: boolean,
  image: PlatformImage,
  known: PlatformFile | undefined,
): PlatformFile {
  const consul = consulOf(options, known);
  const local = (port: number) => `http://127.0.0.1:${port}`;
  return {
    version: "1",
    platform: image.hash,
    hostId: known?.hostId ?? hostIdFrom(hostname()),
    controlUrl: local(ports.control),
    edgeUrl: local(ports.edge),
    executorUrl: local(ports.executor),
    metricsUrls: {
      control: `${local(ports.control)}/metrics`,
      executor: `${local(ports.executor)}/metrics`,
      sidecar: `${local(ports.sidecar)}/metrics`,
      edge: `${local(ports.edgeAdmin)}/metrics`,
    },
    isPublic,
    network: options.network,
    ports,
    ...(consul === undefined ? {} : { consul }),
  };
}

/** Starts supervise.sh in a session of its own; it outlives us, and of our environment only what builds need reaches it. */
function supervise(
  state: string,
  folder: string,
  platform: PlatformFile,
  { path, root, buildEnvironment }: Surroundings,
): void {
  const logPath = executorLog(state);
  if (existsSync(logPath) && statSync(logPath).size > LOG_BYTES_MAX) renameSync(logPath, `${logPath}.1`);
  const log = openSync(logPath, "a", 0o600);
  const node = nodeOf(root, folder);
  const child = spawn("sh", [join(folder, "bootstrap/supervise.sh"), node, folder, state], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", log, log],
    env: {
      ...buildEnvironment,
      PATH: path,
      LANG: "C.UTF-8",
      GILLIAM_STATE: state,
      GILLIAM_HOST_ID: platform.hostId,
      GILLIAM_CONTROL_URL: platform.controlUrl,
      GILLIAM_EXECUTOR_PORT: String(platform.ports.executor),
      GILLIAM_NETWORK: platform.network,
      GILLIAM_DRIVER: platform.driver ?? "process",
      ...(platform.dockerSocket === undefined ? {} : { GILLIAM_DOCKER_SOCKET: platform.dockerSocket }),
      GILLIAM_PLATFORM: folder,
    },
  });
  child.unref();
  closeSync(log);
}

/** The Node.js in the platform's copy where we run on the clone's own, else ours. */
function nodeOf(root: string, folder: string): string {
  const fromRoot = relative(root, process.execPath);
  return fromRoot.startsWith("node_modules") ? join(folder, fromRoot) : process.execPath;
}

const executorLog = (state: string) => join(state, "supervise", "executor.log");

async function waitForParts(
  state: string,
  platform: PlatformFile,
  { clock, say }: Surroundings,
): Promise<void> {
  const parts = [
    ["the executor", `${platform.executorUrl}/healthz`],
    ["control", `${platform.controlUrl}/v1/health`],
    ["the sidecar", platform.metricsUrls["sidecar"]?.replace("/metrics", "/healthz") ?? ""],
    ["the edge", platform.metricsUrls["edge"]?.replace("/metrics", "/healthz") ?? ""],
  ] as const;
  const startedMs = clock.nowMs();
  const missing = await waitUntil(
    async () => {
      const healthy = await Promise.all(parts.map(([, url]) => isHealthy(url)));
      const waiting = parts.filter((_, at) => healthy[at] !== true).map(([name]) => name);
      if (waiting.length === 0) return undefined;
      const dead = clock.nowMs() - startedMs > 3_000 && !executorRuns(state);
      if (dead && waiting.includes("the executor")) throw diedEarly(state);
      return waiting.join(", ");
    },
    { clock, timeoutMs: PLATFORM_MS_MAX, onChange: (text) => say(`  waiting for ${text} …`) },
  );
  if (missing === undefined) return;
  throw new UserError(`After ${PLATFORM_MS_MAX / 1000} s these did not answer: ${missing}`, {
    code: "not_ready",
    problems: await whatPartsSay(state, platform),
    next: `Read ${executorLog(state)} and ${join(state, "executor")}/; bootstrap/down stops what has started`,
  });
}

/** What the executor knows of the platform's parts, in its own words; else the end of its log. */
async function whatPartsSay(state: string, { executorUrl }: PlatformFile): Promise<string[]> {
  const answer = await get(`${executorUrl}/v1/instances`, { token: readToken(state, "host-token") });
  if (typeof answer === "string" || answer.status !== 200) return lastLines(executorLog(state));
  const { instances } = z.object({ instances: z.array(InstanceStatus) }).parse(JSON.parse(answer.body));
  return instances
    .filter(({ boot, phase }) => boot !== undefined && phase !== "ready")
    .flatMap(({ instanceId, reason, lastLines: lines }) => [
      `${instanceId}: ${reason}`,
      ...lines.map((line) => `    ${line}`),
    ]);
}

function diedEarly(state: string): UserError {
  return new UserError("The executor ended right after its start", {
    code: "executor_ended",
    problems: lastLines(executorLog(state)),
    next: `Read ${executorLog(state)}`,
  });
}

function lastLines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n").slice(-10);
  } catch {
    return [];
  }
}

/** Deploys a formation that control does not know yet; one that it knows stays as it is, whatever its release. */
async function deployOnce(
  folder: string,
  name: string,
  state: string,
  platform: PlatformFile,
  { clock, root, say }: Surroundings,
): Promise<FormationView> {
  const view = async () => {
    const url = `${platform.controlUrl}/v1/formations/${name}`;
    const answer = await get(url, { token: readToken(state, "token") });
    if (typeof answer === "string")
      throw new UserError(`Control does not answer: ${answer}`, { code: "control_away" });
    if (answer.status === 404) return undefined;
    if (answer.status === 200) return FormationView.parse(JSON.parse(answer.body));
    throw new UserError(`Control answered ${answer.status}: ${answer.body}`, { code: "control_refused" });
  };
  if ((await view()) === undefined) {
    say(`Deploying ${folder} …`);
    const manifest = join(folder, "gilliam.yaml");
    const { status } = spawnSync(
      join(root, "cli/gilliam"),
      ["deploy", "--file", manifest, "--state", state],
      {
        stdio: ["ignore", 2, 2],
      },
    );
    if (status !== 0) {
      throw new UserError(`The formation ${name} could not be deployed`, {
        code: "deploy_failed",
        next: `The platform runs: mend what is said above, then cli/gilliam deploy --file ${folder}/gilliam.yaml --state ${state}`,
      });
    }
  }
  let found = await view();
  const missing = await waitUntil(
    async () => {
      found = await view().catch(() => found);
      return found === undefined ? `formation ${name}` : whatIsMissing(found, platform);
    },
    { clock, timeoutMs: FORMATION_MS_MAX, onChange: (text) => say(`  waiting for ${text} …`) },
  );
  if (missing === undefined && found !== undefined) return found;
  throw new UserError(`The formation ${name} does not answer yet: ${missing}`, {
    code: "formation_not_ready",
    next: `Ask why: cli/gilliam status --formation ${name} --state ${state}`,
  });
}

/** Undefined when the formation serves: its first public address answers, or, without one, all is as wanted. */
async function whatIsMissing(view: FormationView, platform: PlatformFile): Promise<string | undefined> {
  if (view.state === "down") return undefined;
  const waiting = view.services.filter(({ ready, wanted }) => ready < wanted);
  const url = view.urls[0];
  if (url === undefined) {
    return view.settled
      ? undefined
      : `${waiting.map((service) => service.name).join(", ") || view.name} to settle`;
  }
  const { hostname: host, pathname } = new URL(url);
  const answer = await get(new URL(pathname, platform.edgeUrl).href, { host, timeoutMs: 10_000 });
  if (typeof answer === "object" && answer.status < 500) return undefined;
  if (waiting.length === 0) return `an answer from ${url}`;
  return waiting.map(({ name, ready, wanted }) => `${name} (${ready} of ${wanted} ready)`).join(", ");
}
