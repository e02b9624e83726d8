import { formatBytes, formatDuration } from "../base/units.ts";
import type { Exit, Listener } from "./driver.ts";

/** Plain words for what happened to an instance. Pure. */

/** What installs a program that is often missing, on Debian and its like. */
const PACKAGES: Readonly<Record<string, string>> = {
  python3: "apt-get install python3",
  python: "apt-get install python-is-python3",
  pip3: "apt-get install python3-pip",
  pip: "apt-get install python3-pip",
  npm: "apt-get install npm",
  ruby: "apt-get install ruby",
  php: "apt-get install php-cli",
  java: "apt-get install default-jre-headless",
  go: "apt-get install golang-go",
  redis: "apt-get install redis-server",
  "redis-server": "apt-get install redis-server",
  gunicorn: "add gunicorn to requirements.txt",
  uvicorn: "add uvicorn to requirements.txt",
};

export interface ExitFacts {
  readonly exit: Exit;
  /** The shell command line. */
  readonly command: string;
  /** The last lines it wrote. */
  readonly lastLines: readonly string[];
  /** How long it ran, in milliseconds; undefined when not known. */
  readonly ranMs: number | undefined;
  readonly hostId: string;
  readonly memoryBytes: number | undefined;
}

/** One sentence: how it ended and, where that can be told, what to do. */
export function explainExit({ exit, command, lastLines, ranMs, hostId, memoryBytes }: ExitFacts): string {
  const after = ranMs === undefined ? "" : ` after ${formatDuration(Math.max(0, ranMs))}`;
  if (exit.outOfMemory) {
    const limit = memoryBytes === undefined ? "the memory" : `its limit of ${formatBytes(memoryBytes)}`;
    return `ran out of memory${after}: it needed more than ${limit}; raise resources.memory`;
  }
  if (exit.code === 127) return explainMissing(command, lastLines, hostId);
  if (exit.code === 126) {
    return `"${firstWord(command)}" is there but cannot be executed (exit code 126): chmod +x, and check its first line`;
  }
  if (exit.signal !== null) return `was ended by ${exit.signal}${after}`;
  if (exit.code === null) return `ended${after}; nobody saw how`;
  if (exit.code === 0) return `ended by itself with exit code 0${after}; a service must keep running`;
  return `exited with code ${exit.code}${after}`;
}

/** The shell says which program was missing: `sh: 1: python3: not found`. */
function explainMissing(command: string, lastLines: readonly string[], hostId: string): string {
  const said = lastLines
    .map((line) => /(?:^|: )([^\s:]+): (?:command )?not found$/.exec(line)?.[1])
    .findLast((name) => name !== undefined);
  const program = said ?? firstWord(command);
  const install = PACKAGES[program];
  const next = install === undefined ? "install it, or correct the command" : install;
  return `${program} is not installed on host ${hostId} (exit code 127 of "${command}"); ${next}`;
}

function firstWord(command: string): string {
  const words = command.trim().split(/\s+/);
  return words.find((word) => !/^[A-Za-z_]\w*=/.test(word) && word !== "exec") ?? command;
}

/** Why nobody answers at `address`, from what the instance listens on instead. */
export function explainRefused(
  address: { readonly host: string; readonly port: number },
  bindHost: string,
  listeners: readonly Listener[],
): string {
  if (listeners.length === 0)
    return `it does not listen on any port yet; port ${address.port} is expected ($PORT)`;
  const here = listeners.filter(({ port }) => port === address.port);
  const loopback = here.length > 0 && here.every(({ host }) => host.startsWith("127.") || host === "::1");
  if (loopback && bindHost !== "127.0.0.1") {
    return `it listens on ${here[0]?.host}:${address.port} only; it must listen on ${bindHost} ($HOST), or nobody can reach it`;
  }
  if (here.length > 0) return `it listens on port ${address.port} but does not accept connections`;
  const others = [...new Set(listeners.map(({ host, port }) => `${host}:${port}`))].join(", ");
  return `it listens on ${others}, not on port ${address.port} ($PORT)`;
}
