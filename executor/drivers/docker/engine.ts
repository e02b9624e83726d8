import type { Duplex, Readable } from "node:stream";
import Docker from "dockerode";
import { UserError, errnoOf, messageOf } from "../../../base/errors.ts";

/** The Docker Engine of this host, as far as the driver needs it. The only file that knows dockerode. */

/** How long the engine may take for each kind of call, in milliseconds. */
export interface EngineLimits {
  /** Looking: inspect, list, ping. @default 10_000 */
  readonly lookMs: number;
  /** Changing: create, start, kill, remove, rename. @default 30_000 */
  readonly changeMs: number;
}

export interface ContainerFacts {
  readonly id: string;
  /** Without the leading slash. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `created`: it never ran. */
  readonly state: "created" | "running" | "ended";
  /** Of its first process, as the host numbers it; 0 unless running. */
  readonly pid: number;
  readonly exitCode: number;
  readonly outOfMemory: boolean;
  /** Milliseconds since 1970; 0 when it never started or never ended. */
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  /** The signal its image wants to be stopped with; empty: none was chosen. */
  readonly stopSignal: string;
  /** What the image's own HEALTHCHECK says; undefined when it has none. */
  readonly health: "starting" | "healthy" | "unhealthy" | undefined;
}

export interface ImageFacts {
  readonly id: string;
  readonly user: string;
  readonly stopSignal: string;
  readonly hasHealthCheck: boolean;
  /** TCP ports of EXPOSE. */
  readonly exposed: readonly number[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface EngineEvent {
  readonly containerId: string;
  readonly action: string;
}

export interface ExecStream {
  readonly id: string;
  readonly stream: Duplex;
}

const DEFAULT_LIMITS: EngineLimits = { lookMs: 10_000, changeMs: 30_000 };

export class Engine {
  readonly #docker: Docker;
  readonly #limits: EngineLimits;
  readonly socketPath: string;

  constructor({ socketPath, limits = DEFAULT_LIMITS }: { socketPath: string; limits?: EngineLimits }) {
    this.socketPath = socketPath;
    this.#docker = new Docker({ socketPath });
    this.#limits = limits;
  }

  /** @throws UserError "engine_gone" or "engine_silent". */
  async version(): Promise<{ version: string; apiVersion: string }> {
    const answer = await this.#look("its version", () => this.#docker.version());
    return { version: answer.Version, apiVersion: answer.ApiVersion };
  }

  /** Undefined when there is no such container. */
  async inspect(nameOrId: string): Promise<ContainerFacts | undefined> {
    const found = await this.#absentOr(() =>
      this.#look(`container ${nameOrId}`, (abortSignal) =>
        this.#docker.getContainer(nameOrId).inspect({ abortSignal }),
      ),
    );
    return found === undefined ? undefined : factsOf(found);
  }

  /** Every container with these labels, those that ended included. */
  async list(
    labels: Readonly<Record<string, string>>,
  ): Promise<{ id: string; name: string; labels: Record<string, string> }[]> {
    const label = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const found = await this.#look("its containers", (abortSignal) =>
      this.#docker.listContainers({ all: true, filters: { label }, abortSignal }),
    );
    return found.map(({ Id, Names, Labels }) => ({
      id: Id,
      name: plainName(Names[0] ?? ""),
      labels: Labels,
    }));
  }

  /**
   * Returns the new container's id.
   * @throws UserError "image_missing", "name_taken", or what the engine says is wrong.
   */
  async create(name: string, options: Docker.ContainerCreateOptions): Promise<string> {
    const { id } = await this.#change(`create ${name}`, (abortSignal) =>
      this.#docker.createContainer({ ...options, name, abortSignal }),
    );
    return id;
  }

  async start(id: string): Promise<void> {
    await this.#change(`start ${shortId(id)}`, (abortSignal) =>
      this.#docker.getContainer(id).start({ abortSignal }),
    );
  }

  /** False when it does not run. */
  async kill(id: string, signal: string): Promise<boolean> {
    try {
      await this.#change(`kill ${shortId(id)}`, (abortSignal) =>
        this.#docker.getContainer(id).kill({ signal, abortSignal }),
      );
      return true;
    } catch (error) {
      if (statusOf(error) === 404 || statusOf(error) === 409) return false;
      throw error;
    }
  }

  /** Its exit code, once it has ended. */
  async wait(id: string): Promise<number> {
    const answer = await this.#change(`wait for ${shortId(id)}`, (abortSignal) =>
      this.#docker.getContainer(id).wait({ abortSignal }),
    );
    return (answer as { StatusCode: number }).StatusCode;
  }

  /** Kills and deletes it with its anonymous volumes; nothing happens when it is gone already. */
  async remove(id: string): Promise<void> {
    await this.#absentOr(() =>
      this.#change(`remove ${shortId(id)}`, (abortSignal) =>
        this.#docker.getContainer(id).remove({ force: true, v: true, abortSignal }),
      ),
    );
  }

  async rename(id: string, name: string): Promise<void> {
    await this.#change(`rename ${shortId(id)}`, (abortSignal) =>
      this.#docker.getContainer(id).rename({ name, abortSignal }),
    );
  }

  /** What one stream of the container has written since, each message with its time; then goes on when `follow`. */
  async logs(
    id: string,
    stream: "stdout" | "stderr",
    { since, follow, signal }: { since: string; follow: boolean; signal: AbortSignal },
  ): Promise<Readable> {
    const query = { [stream]: true, timestamps: true, since, follow };
    const answer = this.#docker.modem as Modem;
    return this.#named(`logs of ${shortId(id)}`, openLogs(answer, id, query, signal));
  }

  /** One JSON document a line. Ends when the engine does. */
  async events(
    labels: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<EngineEvent>> {
    const label = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const stream = await this.#named(
      "its events",
      this.#docker.getEvents({
        filters: { type: ["container"], label },
        abortSignal: signal,
      } as Docker.GetEventsOptions),
    );
    return readEvents(stream as Readable);
  }

  /** A command beside what runs in the container. */
  async exec(id: string, options: Docker.ExecCreateOptions): Promise<ExecStream> {
    const exec = await this.#change(`exec in ${shortId(id)}`, (abortSignal) =>
      this.#docker.getContainer(id).exec({ ...options, abortSignal }),
    );
    const stream = await this.#named(
      `exec in ${shortId(id)}`,
      exec.start({ hijack: true, stdin: options.AttachStdin === true, Tty: options.Tty === true }),
    );
    return { id: exec.id, stream };
  }

  async execFacts(execId: string): Promise<{ running: boolean; exitCode: number | undefined; pid: number }> {
    const facts = await this.#look("an exec", (abortSignal) =>
      this.#docker.getExec(execId).inspect({ abortSignal }),
    );
    return { running: facts.Running, exitCode: facts.ExitCode ?? undefined, pid: facts.Pid };
  }

  async resizeExec(execId: string, size: { columns: number; rows: number }): Promise<void> {
    await this.#absentOr(() =>
      this.#change("resize a terminal", (abortSignal) =>
        this.#docker.getExec(execId).resize({ w: size.columns, h: size.rows, abortSignal }),
      ),
    );
  }

  async resize(id: string, size: { columns: number; rows: number }): Promise<void> {
    await this.#absentOr(() =>
      this.#change("resize a terminal", (abortSignal) =>
        this.#docker.getContainer(id).resize({ w: size.columns, h: size.rows, abortSignal }),
      ),
    );
  }

  /** Its streams, from before it is started; closed when it ends. */
  async attach(id: string): Promise<Duplex> {
    const stream = await this.#named(
      `attach to ${shortId(id)}`,
      this.#docker
        .getContainer(id)
        .attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true }),
    );
    return stream as Duplex;
  }

  /** Splits what `exec` and `attach` return without a terminal. */
  demultiplex(stream: Duplex, onOutput: (stream: "stdout" | "stderr", bytes: Buffer) => void): void {
    stream.on(
      "data",
      frameSplitter((kind, bytes) => onOutput(kind, bytes)),
    );
  }

  /** Undefined when the image is not here. */
  async image(reference: string): Promise<ImageFacts | undefined> {
    const found = await this.#absentOr(() =>
      this.#look(`image ${reference}`, (abortSignal) =>
        this.#docker.getImage(reference).inspect({ abortSignal } as Docker.ImageInspectOptions),
      ),
    );
    return found === undefined ? undefined : imageFactsOf(found);
  }

  async listImages(
    labels: Readonly<Record<string, string>>,
  ): Promise<{ id: string; tags: readonly string[] }[]> {
    const label = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const found = await this.#look("its images", (abortSignal) =>
      this.#docker.listImages({ filters: { label }, abortSignal } as Docker.ListImagesOptions),
    );
    return found.map(({ Id, RepoTags }) => ({ id: Id, tags: RepoTags ?? [] }));
  }

  async removeImage(reference: string): Promise<void> {
    await this.#absentOr(() =>
      this.#change(`remove image ${reference}`, (abortSignal) =>
        this.#docker.getImage(reference).remove({ abortSignal }),
      ),
    );
  }

  /** Makes an image of a root file system. `changes` are lines of a Dockerfile. */
  async importImage(
    tar: Readable,
    reference: string,
    changes: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const [repo = reference, tag = "latest"] = splitTag(reference);
    const progress = await this.#named(
      `import ${reference}`,
      this.#docker.importImage(tar, { repo, tag, changes, abortSignal: signal } as object),
    );
    await readProgress(progress, () => undefined);
  }

  /** Builds a context (a tar archive) and returns when it is done. @throws UserError "build_failed". */
  async build(
    context: Readable,
    options: Readonly<Record<string, unknown>>,
    onText: (text: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const progress = await this.#named(
      "build",
      this.#docker.buildImage(context, { ...options, abortSignal: signal } as Docker.ImageBuildOptions),
    );
    await readProgress(progress, onText);
  }

  /** @throws UserError "image_missing" with what the registry says. */
  async pull(reference: string, signal: AbortSignal): Promise<void> {
    const progress = await this.#named(
      `pull ${reference}`,
      this.#docker.pull(reference, { abortSignal: signal }),
    );
    await readProgress(progress, () => undefined);
  }

  #look<T>(what: string, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#limited(what, this.#limits.lookMs, call);
  }

  #change<T>(what: string, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#limited(what, this.#limits.changeMs, call);
  }

  async #limited<T>(what: string, limitMs: number, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const signal = AbortSignal.timeout(limitMs);
    try {
      // Not every call of the library hears the signal; nobody waits longer for those either.
      return await Promise.race([call(signal), rejectWith(signal)]);
    } catch (error) {
      if (!signal.aborted) throw this.#explain(what, error);
      throw new UserError(
        `The Docker Engine at ${this.socketPath} did not answer within ${limitMs / 1000} s (${what})`,
        {
          code: "engine_silent",
          status: 504,
          next: "Is dockerd overloaded or hanging? See its log.",
          cause: error,
        },
      );
    }
  }

  async #named<T>(what: string, call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw this.#explain(what, error);
    }
  }

  #explain(what: string, error: unknown): Error {
    if (error instanceof UserError) return error;
    const errno = errnoOf(error);
    if (errno !== undefined && ["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE", "EACCES"].includes(errno)) {
      return new UserError(`The Docker Engine at ${this.socketPath} cannot be reached (${errno}; ${what})`, {
        code: "engine_gone",
        status: 503,
        next: "Start it (systemctl start docker), or set GILLIAM_DOCKER_SOCKET.",
        cause: error,
      });
    }
    const status = statusOf(error) ?? 500;
    const said = reasonOf(error);
    if (status === 404 && /no such image/i.test(said)) {
      return new UserError(said.replace(/^no such image/i, "there is no image"), {
        code: "image_missing",
        status,
        cause: error,
      });
    }
    if (status === 409 && /name .* already in use/i.test(said)) {
      return new UserError(`the Docker Engine already has a container of that name: ${said}`, {
        code: "name_taken",
        status,
        next: "Rename or remove that container; it is not Gilliam's.",
        cause: error,
      });
    }
    return new UserError(`the Docker Engine refuses to ${what}: ${said}`, {
      code: "engine_refused",
      status,
      cause: error,
    });
  }

  async #absentOr<T>(call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      // Somebody else is deleting it at this moment.
      if (statusOf(error) === 409 && /removal of container .* is already in progress/i.test(messageOf(error)))
        return undefined;
      throw error;
    }
  }
}

function rejectWith(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

/** Reads the frames in which the engine sends two streams over one connection (Engine API, "attach"). */
export function frameSplitter(
  onFrame: (stream: "stdout" | "stderr", bytes: Buffer) => void,
): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= FRAME_HEAD_BYTES) {
      const end = FRAME_HEAD_BYTES + rest.readUInt32BE(4);
      if (rest.length < end) return;
      onFrame(rest[0] === 2 ? "stderr" : "stdout", rest.subarray(FRAME_HEAD_BYTES, end));
      rest = rest.subarray(end);
    }
  };
}

const FRAME_HEAD_BYTES = 8;

async function* readEvents(stream: Readable): AsyncGenerator<EngineEvent> {
  for await (const line of readLines(stream)) {
    const event = JSON.parse(line) as { Action?: string; Actor?: { ID?: string } };
    yield { containerId: event.Actor?.ID ?? "", action: event.Action ?? "" };
  }
}

async function* readLines(stream: AsyncIterable<Buffer | string>): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of stream) {
    rest += chunk.toString();
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") yield line;
  }
  if (rest.trim() !== "") yield rest;
}

/** Follows a build, an import or a pull; the last line tells whether it went well. */
async function readProgress(stream: NodeJS.ReadableStream, onText: (text: string) => void): Promise<void> {
  for await (const line of readLines(stream as AsyncIterable<Buffer | string>)) {
    const message = JSON.parse(line) as { stream?: string; status?: string; error?: string };
    if (message.stream !== undefined) onText(message.stream);
    if (message.error !== undefined) throw new UserError(message.error, { code: "build_failed" });
  }
}

/** dockerode reads the whole log into memory unless it is followed; this is a stream in any case. */
function openLogs(modem: Modem, id: string, query: object, abortSignal: AbortSignal): Promise<Readable> {
  return new Promise((resolve, reject) => {
    modem.dial(
      {
        path: `/containers/${id}/logs?`,
        method: "GET",
        abortSignal,
        isStream: true,
        statusCodes: { 200: true, 404: "no such container", 500: "server error" },
        options: query,
      },
      (error, stream) => (error === null ? resolve(stream as Readable) : reject(error)),
    );
  });
}

interface Modem {
  dial(options: unknown, callback: (error: Error | null, stream: unknown) => void): void;
}

function factsOf(found: Docker.ContainerInspectInfo): ContainerFacts {
  const { State, Config } = found;
  const health = State.Health?.Status;
  return {
    id: found.Id,
    name: plainName(found.Name),
    labels: Config.Labels ?? {},
    state: State.Running ? "running" : State.Status === "created" ? "created" : "ended",
    pid: State.Running ? State.Pid : 0,
    exitCode: State.ExitCode,
    outOfMemory: State.OOMKilled,
    startedAtMs: timeMs(State.StartedAt),
    finishedAtMs: timeMs(State.FinishedAt),
    stopSignal: (Config as { StopSignal?: string }).StopSignal ?? "",
    health: health === "starting" || health === "healthy" || health === "unhealthy" ? health : undefined,
  };
}

function imageFactsOf({ Id, Config }: Docker.ImageInspectInfo): ImageFacts {
  const config = Config as typeof Config & { StopSignal?: string; Healthcheck?: { Test?: string[] } };
  const test = config.Healthcheck?.Test ?? [];
  return {
    id: Id,
    user: config.User ?? "",
    stopSignal: config.StopSignal ?? "",
    hasHealthCheck: test.length > 0 && test[0] !== "NONE",
    exposed: Object.keys(config.ExposedPorts ?? {})
      .filter((port) => port.endsWith("/tcp"))
      .map((port) => Number.parseInt(port, 10)),
    labels: config.Labels ?? {},
  };
}

/** The engine's year 1 stands for never. */
function timeMs(text: string): number {
  const ms = Date.parse(text);
  return Number.isNaN(ms) || ms < 0 ? 0 : ms;
}

function splitTag(reference: string): string[] {
  const at = reference.lastIndexOf(":");
  return at > reference.lastIndexOf("/") ? [reference.slice(0, at), reference.slice(at + 1)] : [reference];
}

const plainName = (name: string) => name.replace(/^\//, "");
const shortId = (id: string) => (/^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id);

function statusOf(error: unknown): number | undefined {
  const known = error as { statusCode?: number; status?: number; cause?: unknown } | undefined;
  return known?.statusCode ?? known?.status;
}

function reasonOf(error: unknown): string {
  const said = (error as { json?: { message?: string } | null }).json?.message;
  return said ?? messageOf(error);
}
