import { enableCompileCache } from "node:module";
import { createInterface } from "node:readline/promises";
import { isatty, type WriteStream } from "node:tty";
import { systemClock } from "../base/clock.ts";
import type { Shell, Sink } from "./shell.ts";

/** The command `gilliam`: the one place of the CLI that touches the real process. */
enableCompileCache();

const STDIN_BYTES_MAX = 8 * 1024 * 1024;
const interrupted = new AbortController();
let signals = 0;
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => {
    signals += 1;
    if (signals > 1) process.exit(130);
    interrupted.abort(new Error(`stopped by ${name}`));
  });
}
// `gilliam logs | head`: the reader left, so there is nothing more to say.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
}

const { NO_COLOR, FORCE_COLOR, TERM } = process.env;

function sink(stream: WriteStream, descriptor: number): Sink {
  const isTerminal = isatty(descriptor);
  const plain =
    (NO_COLOR !== undefined && NO_COLOR !== "") || TERM === "dumb" || process.argv.includes("--no-color");
  const forced = FORCE_COLOR !== undefined && FORCE_COLOR !== "" && FORCE_COLOR !== "0";
  return {
    write: (text) => void stream.write(text),
    isTerminal,
    columns: () => (isTerminal ? stream.columns || 80 : Infinity),
    color: !plain && (forced || isTerminal),
  };
}

async function readStdin(): Promise<Uint8Array | undefined> {
  if (process.stdin.isTTY) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > STDIN_BYTES_MAX) throw new Error(`standard input is larger than ${STDIN_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function confirm(question: string): Promise<boolean | undefined> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(`${question} [y/N] `, { signal: interrupted.signal });
    return /^y(?:es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

const shell: Shell = {
  env: process.env,
  cwd: process.cwd(),
  uid: process.getuid?.() ?? -1,
  clock: systemClock,
  stdout: sink(process.stdout, 1),
  stderr: sink(process.stderr, 2),
  readStdin,
  confirm,
  signal: interrupted.signal,
};

const { runCommandLine } = await import("./program.ts");
process.exitCode = await runCommandLine(process.argv.slice(2), shell);
// Whatever a verb left open (a terminal's stdin, an idle socket) must not keep the command from ending.
process.stdout.write("", () => process.stderr.write("", () => process.exit()));
