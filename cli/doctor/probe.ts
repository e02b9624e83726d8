import { execFile } from "node:child_process";
import { accessSync, constants, existsSync, statfsSync } from "node:fs";
import { lookup } from "node:dns/promises";
import { createServer } from "node:net";
import { dirname } from "node:path";

/** How the doctor touches the machine; tests stand in for it. */
export interface Probe {
  /** Standard output of a command that ended with 0; undefined when it is missing, fails or takes over 5 s. */
  run(command: string, args: readonly string[]): Promise<string | undefined>;
  exists(path: string): boolean;
  /** Whether this user may write there; for a path that does not exist, in the nearest folder above that does. */
  isWritable(path: string): boolean;
  /** Bytes left for this user on the file system that holds `path` (or its nearest folder above). */
  freeBytes(path: string): number | undefined;
  isPortFree(port: number): Promise<boolean>;
  /** The addresses of a host name; none when it is not known. */
  resolve(name: string): Promise<string[]>;
}

export const machineProbe: Probe = {
  run: (command, args) =>
    new Promise((resolve) => {
      execFile(command, [...args], { timeout: 5_000 }, (error, stdout) => {
        resolve(error === null ? stdout.trim() : undefined);
      });
    }),
  exists: existsSync,
  isWritable: (path) => {
    try {
      accessSync(nearest(path), constants.W_OK);
      return true;
    } catch {
      return false;
    }
  },
  freeBytes: (path) => {
    try {
      const { bavail, bsize } = statfsSync(nearest(path));
      return bavail * bsize;
    } catch {
      return undefined;
    }
  },
  isPortFree: (port) =>
    new Promise((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
    }),
  resolve: async (name) => {
    try {
      return (await lookup(name, { all: true })).map(({ address }) => address);
    } catch {
      return [];
    }
  },
};

function nearest(path: string): string {
  return existsSync(path) || dirname(path) === path ? path : nearest(dirname(path));
}
