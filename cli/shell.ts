import type { Clock } from "../base/clock.ts";

/** Where text goes: standard output for data, standard error for progress. */
export interface Sink {
  write(text: string): void;
  /** A person may be reading along. */
  readonly isTerminal: boolean;
  /** Characters that fit into a line; Infinity when nobody reads along. */
  columns(): number;
  readonly color: boolean;
}

/** The world around the command line, passed in, so that tests stand in for it. */
export interface Shell {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Numeric user id; -1 where there is none. */
  readonly uid: number;
  readonly clock: Clock;
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** All of standard input, or undefined when it is a terminal. */
  readonly readStdin: () => Promise<Uint8Array | undefined>;
  /** Asks a person a yes-or-no question; undefined when nobody is there to answer. */
  readonly confirm: (question: string) => Promise<boolean | undefined>;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
}
