import { chownSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { backoffMs } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { readDurable, writeDurable } from "../../base/durable-file.ts";
import { UserError, messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { formatDuration } from "../../base/units.ts";
import type { BuildOrder, BuildStatus } from "../../model/host.ts";
import type { ImageRef } from "../../model/run-spec.ts";
import { explainExit } from "../explain.ts";
import type { Images, ResolvedImage } from "../images.ts";
import { APP_FOLDER, DOCKERFILE, type ImagePacker } from "../image-packer.ts";
import { removeTree } from "../../base/remove-tree.ts";
import { describeFolder, giveTo, makeReadOnly } from "./files.ts";
import { planBuild, type BuildPlan, type BuildStep } from "./language.ts";
import { runStep } from "./run-step.ts";
import { storeArchive, unpackArchive, type UnpackLimits } from "./unpack.ts";

export interface BuilderOptions {
  readonly executorFolder: string;
  readonly platformFolder: string;
  readonly nodeFolder: string;
  readonly hostId: string;
  /** Who runs build steps; undefined: the executor's own user, which is not root. */
  readonly uid: number | undefined;
  readonly setpriv: boolean;
  /** Given to build steps besides PATH and HOME. */
  readonly environment: Readonly<Record<string, string>>;
  readonly limits: UnpackLimits & { readonly timeoutMs: number; readonly outputBytesMax: number };
  /** Makes container images of what was built; undefined where instances are processes. */
  readonly packer?: ImagePacker | undefined;
  /** Images the packer had at the start: others are built anew. */
  readonly packed?: ReadonlySet<string> | undefined;
  readonly fetchBlob: (digest: string, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** What is kept of a finished image, beside its folder: its presence says that the folder is whole. */
const Marker = z.object({ explanation: z.string(), defaultCommand: z.string().optional() });

interface Build {
  readonly order: BuildOrder;
  status: BuildStatus;
}

const DOCKERFILE_PLAN: BuildPlan = {
  explanation: "a Dockerfile, built by the Docker Engine as it says",
  steps: [],
  defaultCommand: undefined,
};
const FETCH_RETRY = { baseMs: 500, capMs: 10_000 };
const FETCH_MS_MAX = 120_000;
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Makes images of source archives, one at a time, each at most once: fetch, unpack, find the language, install, make
 * read-only, mark as finished. The marker is written last and the folder is built in its final place, because
 * virtual environments hold their own path; a folder without marker is what a crash left, and is deleted.
 */
export class Builder implements Images {
  readonly #options: BuilderOptions;
  readonly #imagesFolder: string;
  readonly #logsFolder: string;
  readonly #home: string;
  readonly #builds = new Map<string, Build>();
  readonly #queue: string[] = [];
  readonly #abort = new AbortController();
  #ordered: ReadonlySet<string> = new Set();
  #working = false;
  #onChange: () => void = () => undefined;

  constructor(options: BuilderOptions) {
    this.#options = options;
    this.#imagesFolder = join(options.executorFolder, "images");
    this.#logsFolder = join(options.executorFolder, "builds");
    this.#home = join(options.executorFolder, "build-home");
    mkdirSync(this.#imagesFolder, { recursive: true, mode: 0o711 });
    mkdirSync(this.#logsFolder, { recursive: true, mode: 0o700 });
    mkdirSync(this.#home, { recursive: true, mode: 0o700 });
    if (options.uid !== undefined) chownSync(this.#home, options.uid, options.uid);
    this.#readFinished();
  }

  resolve(image: ImageRef): ResolvedImage {
    switch (image.kind) {
      case "platform":
        return { kind: "ready", folder: this.#options.platformFolder, defaultCommand: undefined };
      case "gear": {
        const folder = join(this.#options.platformFolder, "model", "gears", image.gear);
        if (existsSync(folder)) return { kind: "ready", folder, defaultCommand: undefined };
        return { kind: "failed", reason: `there is no gear "${image.gear}" in this version of Gilliam` };
      }
      case "docker":
        if (this.#options.packer !== undefined) {
          return { kind: "ready", folder: "", reference: image.reference, defaultCommand: undefined };
        }
        return {
          kind: "failed",
          reason: `image ${image.reference} needs a host with Docker; this one runs processes`,
        };
      case "source":
        return this.#resolveSource({ image: image.image, source: image.source, build: image.build });
    }
  }

  order(builds: readonly BuildOrder[], keep: readonly string[], inUse: () => ReadonlySet<string>): void {
    const ordered = new Set(builds.map(({ image }) => image));
    for (const order of builds) {
      const known = this.#builds.get(order.image);
      // A failed build is tried again when somebody orders it anew, not for as long as the order stands.
      const again = known?.status.state === "failed" && !this.#ordered.has(order.image);
      if (known === undefined || again) this.#enqueue(order);
    }
    this.#ordered = ordered;
    // An empty list of what to keep is what a registry that lost everything would send.
    if (keep.length > 0) this.#collect(new Set([...ordered, ...keep, ...inUse()]));
  }

  statuses(): BuildStatus[] {
    return [...this.#builds.values()].map(({ status }) => status);
  }

  onChange(callback: () => void): void {
    this.#onChange = callback;
  }

  buildLog(image: string): string | undefined {
    const file = this.#logFile(image);
    return existsSync(file) ? readFileSync(file, "utf8") : undefined;
  }

  close(): void {
    this.#abort.abort(new Error("the executor ends"));
  }

  #resolveSource(order: BuildOrder): ResolvedImage {
    const build = this.#builds.get(order.image) ?? this.#enqueue(order);
    const { state, explanation, reason, defaultCommand } = build.status;
    switch (state) {
      case "ready":
        return this.#ready(order.image, defaultCommand);
      case "failed":
        return { kind: "failed", reason: `its image cannot be built: ${reason}` };
      case "queued":
        return { kind: "waiting", reason: reason === "" ? "its image waits to be built" : reason };
      case "building":
        return {
          kind: "waiting",
          reason: `its image is being built (${explanation || "fetching the source"})`,
        };
    }
  }

  #ready(image: string, defaultCommand: string | undefined): ResolvedImage {
    const folder = this.#folder(image);
    const { packer } = this.#options;
    if (packer === undefined) return { kind: "ready", folder, defaultCommand };
    // A Dockerfile says itself where its files are.
    const inside = existsSync(join(folder, DOCKERFILE)) ? "" : APP_FOLDER;
    return { kind: "ready", folder: inside, reference: packer.referenceOf(image), defaultCommand };
  }

  #enqueue(order: BuildOrder): Build {
    const { image } = order;
    const status: BuildStatus = { image, state: "queued", explanation: "", reason: "", lastLines: [] };
    const build: Build = { order, status };
    this.#builds.set(image, build);
    this.#queue.push(image);
    void this.#work();
    return build;
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    for (let image = this.#queue.shift(); image !== undefined; image = this.#queue.shift()) {
      const build = this.#builds.get(image);
      if (build === undefined || this.#abort.signal.aborted) continue;
      const startedMs = this.#options.clock.nowMs();
      this.#set(build, { state: "building" });
      try {
        await this.#build(build);
        const tookMs = this.#options.clock.nowMs() - startedMs;
        this.#options.log.info({ image, took: formatDuration(tookMs) }, "image built");
      } catch (error) {
        if (this.#abort.signal.aborted) break;
        this.#options.log.warn({ image, reason: messageOf(error) }, "image cannot be built");
        this.#set(build, { state: "failed", reason: messageOf(error) });
      }
    }
    this.#working = false;
  }

  async #build(build: Build): Promise<void> {
    const { image, source, build: command } = build.order;
    const folder = this.#folder(image);
    const { uid, limits } = this.#options;
    removeTree(folder);
    writeFileSync(this.#logFile(image), "", { mode: 0o600 });
    const archive = join(this.#logsFolder, `${hexOf(image)}.tar`);
    try {
      await this.#fetch(build, source, archive);
      mkdirSync(folder, { mode: 0o755 });
      await unpackArchive(archive, folder, limits);
    } finally {
      rmSync(archive, { force: true });
    }
    if (uid !== undefined) giveTo(folder, uid);
    const { packer } = this.#options;
    const plan =
      packer !== undefined && existsSync(join(folder, DOCKERFILE))
        ? DOCKERFILE_PLAN
        : planBuild(describeFolder(folder), command);
    this.#set(build, { explanation: plan.explanation });
    for (const step of plan.steps) await this.#runStep(build, step, folder);
    makeReadOnly(folder, uid === undefined ? undefined : process.getuid?.());
    await packer?.pack({
      image,
      folder,
      onText: (text) => writeFileSync(this.#logFile(image), text, { flag: "a" }),
      signal: AbortSignal.any([this.#abort.signal, AbortSignal.timeout(limits.timeoutMs)]),
    });
    const { explanation, defaultCommand } = plan;
    const marker = { explanation, ...(defaultCommand === undefined ? {} : { defaultCommand }) };
    writeDurable(this.#markerFile(image), marker);
    this.#set(build, { state: "ready", reason: "", ...marker });
  }

  /** Control may be away for a while: that is no reason for a build to fail. A wrong digest is, after some tries. */
  async #fetch(build: Build, source: string, archive: string): Promise<void> {
    const { clock, random, fetchBlob, limits } = this.#options;
    for (let attempt = 0; ; attempt += 1) {
      const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(FETCH_MS_MAX)]);
      try {
        await storeArchive(await fetchBlob(source, signal), source, archive, limits.bytesMax, signal);
        return;
      } catch (error) {
        if (error instanceof UserError) throw error;
        this.#set(build, { state: "queued", reason: `cannot fetch its source yet: ${messageOf(error)}` });
        await clock.sleep(100 + backoffMs(attempt, FETCH_RETRY, random), this.#abort.signal);
        this.#set(build, { state: "building", reason: "" });
      }
    }
  }

  async #runStep(build: Build, step: BuildStep, folder: string): Promise<void> {
    const { uid, setpriv, clock, limits, nodeFolder, hostId } = this.#options;
    const logFile = this.#logFile(build.order.image);
    writeFileSync(logFile, `$ ${step.command}\n`, { flag: "a" });
    const { code, timedOut, lastLines } = await runStep(step, {
      folder,
      home: this.#home,
      environment: {
        ...this.#options.environment,
        PATH: `${nodeFolder}:${join(folder, "node_modules", ".bin")}:${SYSTEM_PATH}`,
        LANG: "C.UTF-8",
        CI: "true",
        npm_config_update_notifier: "false",
        PIP_DISABLE_PIP_VERSION_CHECK: "1",
      },
      uid,
      setpriv,
      logFile,
      outputBytesMax: limits.outputBytesMax,
      timeoutMs: limits.timeoutMs,
      clock,
      signal: this.#abort.signal,
    });
    if (code === 0) return;
    this.#abort.signal.throwIfAborted();
    this.#set(build, { lastLines });
    throw new UserError(
      `step "${step.name}" ${describeFailure(step, code, timedOut, lastLines, hostId, limits)}`,
      {
        code: "build_failed",
      },
    );
  }

  #set(build: Build, change: Partial<BuildStatus>): void {
    build.status = { ...build.status, ...change };
    this.#onChange();
  }

  #collect(wanted: ReadonlySet<string>): void {
    for (const [image, { status }] of this.#builds) {
      if (wanted.has(image) || (status.state !== "ready" && status.state !== "failed")) continue;
      this.#options.log.info({ image }, "image collected: no release needs it");
      this.#builds.delete(image);
      this.#delete(image);
    }
  }

  #delete(image: string): void {
    // The marker first: what is half deleted must not look whole.
    for (const file of [`${this.#markerFile(image)}.previous`, this.#markerFile(image)])
      rmSync(file, { force: true });
    removeTree(this.#folder(image));
    rmSync(this.#logFile(image), { force: true });
    this.#options.packer
      ?.remove(image)
      .catch((error: unknown) => this.#options.log.info({ image, reason: messageOf(error) }, "image kept"));
  }

  #readFinished(): void {
    for (const name of readdirSync(this.#imagesFolder)) {
      if (!/^[0-9a-f]{64}$/.test(name)) continue;
      const image = `sha256:${name}`;
      const read = readDurable(this.#markerFile(image));
      const marker = read.kind === "read" ? Marker.safeParse(read.value).data : undefined;
      if (marker === undefined || this.#options.packed?.has(image) === false) {
        this.#options.log.info({ image }, "deleting an image that was never finished");
        this.#delete(image);
        continue;
      }
      const { explanation, defaultCommand } = marker;
      this.#builds.set(image, {
        order: { image, source: image },
        status: {
          image,
          state: "ready",
          explanation,
          reason: "",
          lastLines: [],
          ...(defaultCommand === undefined ? {} : { defaultCommand }),
        },
      });
    }
  }

  #folder(image: string): string {
    return join(this.#imagesFolder, hexOf(image));
  }

  #markerFile(image: string): string {
    return join(this.#imagesFolder, `${hexOf(image)}.json`);
  }

  #logFile(image: string): string {
    return join(this.#logsFolder, `${hexOf(image)}.log`);
  }
}

function describeFailure(
  { command }: BuildStep,
  code: number | null,
  timedOut: boolean,
  lastLines: readonly string[],
  hostId: string,
  { timeoutMs }: { timeoutMs: number },
): string {
  if (timedOut) return `took longer than ${formatDuration(timeoutMs)} and was ended`;
  if (lastLines.some((line) => line.includes("ensurepip is not available"))) {
    return `needs the python3-venv package on host ${hostId}; apt-get install python3-venv`;
  }
  const exit = { code, signal: null, atMs: 0, outOfMemory: false };
  return explainExit({ exit, command, lastLines, ranMs: undefined, hostId, memoryBytes: undefined });
}

/** Without the algorithm; only digits, so it is safe in a path. */
function hexOf(image: string): string {
  return basename(image.replace(/^sha256:/, ""));
}
