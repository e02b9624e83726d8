import type { Duplex } from "node:stream";
import type { Clock } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import type { ExecRequest } from "../../driver.ts";
import { isAlive, processesWithVariable } from "../process/proc.ts";
import type { ContainerFacts, Engine } from "./engine.ts";

/** Commands that run beside an instance: inside its running container, or in one of their own. */

const KILLED = 137;
/** How long a killed command may take to be gone, in milliseconds. */
const GONE_MS_MAX = 5_000;
/** Names every process that an exec started, whatever session it moved to. */
const MARK = "GILLIAM_EXEC";

/** Runs it in the container that runs: same processes, files and limits. The engine cannot end an exec; we can. */
export async function runInside(
  engine: Engine,
  { id: containerId }: ContainerFacts,
  request: ExecRequest,
  { clock, random }: { clock: Clock; random: Random },
): Promise<number> {
  const mark = Math.floor(random() * 2 ** 48).toString(36);
  const { terminal } = request;
  const { id, stream } = await engine.exec(containerId, {
    Cmd: [...request.command],
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: terminal !== undefined,
    Env: [...Object.entries(request.environment).map(([key, value]) => `${key}=${value}`), `${MARK}=${mark}`],
    ...(request.folder === "" ? {} : { WorkingDir: request.folder }),
  });
  let aborted = false;
  const end = async () => {
    const deadlineMs = clock.nowMs() + GONE_MS_MAX;
    for (;;) {
      const left = processesWithVariable(`${MARK}=${mark}`);
      if (left.length === 0) {
        // It may not have begun yet: an exec that the engine is about to start has no process to kill.
        const facts = await engine.execFacts(id).catch(() => undefined);
        if (facts?.running !== true || clock.nowMs() > deadlineMs) break;
      }
      for (const process_ of left) if (isAlive(process_)) tryKill(process_.pid);
      await clock.sleep(20);
    }
  };
  const ended = new Promise<void>((resolve) => stream.on("close", resolve));
  const onAbort = () => {
    aborted = true;
    void end().finally(() => stream.destroy());
  };
  connect(engine, stream, request);
  terminal?.onResize((size) => void engine.resizeExec(id, size).catch(() => undefined));
  request.signal?.addEventListener("abort", onAbort, { once: true });
  if (request.signal?.aborted === true) onAbort();
  await ended;
  request.signal?.removeEventListener("abort", onAbort);
  if (aborted) return KILLED;
  const deadlineMs = clock.nowMs() + GONE_MS_MAX;
  for (;;) {
    const facts = await engine.execFacts(id);
    if (!facts.running || clock.nowMs() > deadlineMs) return facts.exitCode ?? KILLED;
    await clock.sleep(10);
  }
}

/** Runs it in a container made for it, which is removed. */
export async function runBeside(engine: Engine, containerId: string, request: ExecRequest): Promise<number> {
  try {
    const stream = await engine.attach(containerId);
    const ended = new Promise<void>((resolve) => stream.on("close", resolve));
    const onAbort = () => void engine.kill(containerId, "SIGKILL").catch(() => undefined);
    connect(engine, stream, request);
    request.terminal?.onResize((size) => void engine.resize(containerId, size).catch(() => undefined));
    await engine.start(containerId);
    request.signal?.addEventListener("abort", onAbort, { once: true });
    if (request.signal?.aborted === true) onAbort();
    await ended;
    request.signal?.removeEventListener("abort", onAbort);
    return await engine.wait(containerId);
  } finally {
    await engine.remove(containerId);
  }
}

function connect(engine: Engine, stream: Duplex, request: ExecRequest): void {
  const { onOutput, stdin, terminal } = request;
  stream.on("error", () => stream.destroy()); // Its end is what counts; the exit code tells the rest.
  if (terminal === undefined) engine.demultiplex(stream, onOutput);
  else stream.on("data", (bytes: Buffer) => onOutput("stdout", bytes));
  if (terminal === undefined) {
    stream.end(stdin);
    return;
  }
  if (stdin !== undefined) stream.write(stdin);
  terminal.onInput((bytes) => void stream.write(bytes));
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Already gone.
  }
}
