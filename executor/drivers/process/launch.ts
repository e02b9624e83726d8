import type { Privileges } from "../../driver.ts";

/**
 * How a command line becomes a process: the argument vectors, and the two small shell programs in them. Pure.
 *
 *   nsenter (network) → shim (own session, the executor's user) → [joins cgroups] → setpriv → sh -c COMMAND
 */

/**
 * Outlives the executor to write down how the command ended. Arguments: the run folder, files to write 0 to, `--`,
 * the command. It holds no state but three files: `shim` and `child`, lines of /proc/PID/stat that name the two
 * processes for good, and `exit`, the code; the time is the file's. It ignores the stop signals sent to its process
 * group by catching them: a caught signal is reset for the command, an ignored one would stay ignored.
 * The command runs in the foreground, because a shell gives background commands a deaf ear to SIGINT.
 */
export const SHIM = `
run=$1; shift
ulimit -c 0
read -r line < /proc/self/stat; echo "$line" > "$run/shim"
trap : TERM INT QUIT HUP USR1 USR2
(
  read -r line < /proc/self/stat; echo "$line" > "$run/child"
  while [ "$1" != -- ]; do echo 0 > "$1" || :; shift; done 2> /dev/null
  shift
  exec "$@"
)
echo $? > "$run/exit"
`;

/** The same without the book-keeping, for commands that run beside an instance. */
const JOIN = `
while [ "$1" != -- ]; do echo 0 > "$1" || :; shift; done 2> /dev/null
shift
exec "$@"
`;

export interface Launch {
  readonly runFolder: string;
  readonly namespace: string | null;
  readonly cgroupFiles: readonly string[];
  readonly identity: Identity;
}

/** Who the command runs as. */
export interface Identity {
  /** Undefined: whoever the executor is (it is not root). */
  readonly uid: number | undefined;
  readonly privileges: Privileges;
  /** False when this machine has no setpriv. */
  readonly setpriv: boolean;
}

export function shimArguments(launch: Launch, command: string): string[] {
  return [
    ...enter(launch.namespace),
    "/bin/sh",
    "-c",
    SHIM,
    "gilliam-shim",
    launch.runFolder,
    ...launch.cgroupFiles,
    "--",
    ...dropPrivileges(launch.identity),
    "/bin/sh",
    "-c",
    command,
  ];
}

export function execArguments(launch: Launch, command: readonly string[]): string[] {
  return [
    ...enter(launch.namespace),
    "/bin/sh",
    "-c",
    JOIN,
    "gilliam-exec",
    ...launch.cgroupFiles,
    "--",
    ...dropPrivileges(launch.identity),
    ...command,
  ];
}

function enter(namespace: string | null): string[] {
  return namespace === null ? [] : ["nsenter", `--net=${namespace}`];
}

/** The sidecar keeps one capability, the one that entering a network namespace takes; the others keep none. */
export function dropPrivileges({ uid, privileges, setpriv }: Identity): string[] {
  if (!setpriv) return [];
  if (uid === undefined) return ["setpriv", "--no-new-privs"];
  const capabilities = privileges === "sidecar" ? "-all,+sys_admin" : "-all";
  return [
    "setpriv",
    `--reuid=${uid}`,
    `--regid=${uid}`,
    "--clear-groups",
    `--inh-caps=${capabilities}`,
    `--ambient-caps=${capabilities}`,
    `--bounding-set=${capabilities}`,
    "--no-new-privs",
  ];
}

/** How a shell says that its command ended: 128 + n after signal n. */
export function decodeExit(code: number): { code: number | null; signal: string | null } {
  const signal = SIGNALS[code - 128];
  return signal === undefined ? { code, signal: null } : { code: null, signal };
}

/** Linux on x86-64 and arm64; only those a process commonly dies from. */
const SIGNALS: Readonly<Record<number, string>> = {
  1: "SIGHUP",
  2: "SIGINT",
  3: "SIGQUIT",
  4: "SIGILL",
  5: "SIGTRAP",
  6: "SIGABRT",
  7: "SIGBUS",
  8: "SIGFPE",
  9: "SIGKILL",
  10: "SIGUSR1",
  11: "SIGSEGV",
  12: "SIGUSR2",
  13: "SIGPIPE",
  14: "SIGALRM",
  15: "SIGTERM",
  24: "SIGXCPU",
  25: "SIGXFSZ",
  31: "SIGSYS",
};
