import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../base/errors.ts";

/** How long one `up` or `down` waits for another one with the same state folder, in seconds. */
const WAIT_SECONDS = 300;

/**
 * Holds the state folder for this process alone until disposed. Goes with the process, however that ends: the lock is
 * held by a `cat` that reads from us.
 */
export async function lockState(state: string, say: (line: string) => void): Promise<Disposable> {
  const path = join(state, "supervise", "bootstrap.lock");
  const program = "echo locked; exec cat";
  const hold = (...flags: string[]) =>
    spawn("flock", [...flags, path, "sh", "-c", program], { stdio: ["pipe", "pipe", "inherit"] });
  let holder = hold("--nonblock");
  if (!(await isLocked(holder))) {
    say("Another bootstrap/up or bootstrap/down is at work with this state folder; waiting for it …");
    holder = hold("--timeout", String(WAIT_SECONDS));
    if (!(await isLocked(holder))) {
      throw new UserError(`Another bootstrap/up or bootstrap/down still works with ${state}`, {
        code: "busy",
        next: "Try again when it has ended",
      });
    }
  }
  return { [Symbol.dispose]: () => holder.stdin.end() };
}

async function isLocked(holder: ReturnType<typeof spawn>): Promise<boolean> {
  const { stdout } = holder;
  if (stdout === null) return false;
  const said = await Promise.race([once(stdout, "data"), once(holder, "exit")]);
  return String(said[0]).startsWith("locked");
}

/** Whether an executor runs with this state folder: it holds a lock as long as it lives. */
export function executorRuns(state: string): boolean {
  const path = join(state, "supervise", "executor.lock");
  if (!existsSync(path)) return false;
  return spawnSync("flock", ["--nonblock", "--conflict-exit-code", "75", path, "true"]).status === 75;
}
