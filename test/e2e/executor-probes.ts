import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tar from "tar-fs";

/** What a test looks at from outside: /proc, ports, archives. */

export function uidOf(pid = 0): number {
  return Number(/^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

export function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Children of `pid` that have ended and were not waited for. */
export function zombiesOf(pid: number): number {
  return readAllProc("stat").filter((stat) => {
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" && fields[1] === String(pid);
  }).length;
}

/** Processes with `text` in their environment or on their command line. */
export function processesNaming(text: string): number {
  return [...readAllProc("environ"), ...readAllProc("cmdline")].filter((one) => one.includes(text)).length;
}

function readAllProc(file: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/${file}`, "utf8");
      } catch {
        return "";
      }
    });
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts a second executor on a state folder; resolves when it has ended. */
export async function runSecond(state: string): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../executor/main.ts")], {
    env: { GILLIAM_STATE: state, GILLIAM_EXECUTOR_PORT: "0" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let output = "";
  child.stderr.on("data", (bytes: Buffer) => (output += bytes.toString()));
  const code = await new Promise<number | null>((resolve) => {
    child.on("close", resolve);
  });
  return { code, output };
}

/** An archive as the command line tool packs it, as far as the executor can tell. */
export async function packSource(files: Record<string, string>): Promise<{ digest: string; bytes: Buffer }> {
  const folder = mkdtempSync(join(tmpdir(), "source-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const chunks: Buffer[] = [];
  for await (const chunk of tar.pack(folder)) chunks.push(chunk as Buffer);
  rmSync(folder, { recursive: true });
  const bytes = Buffer.concat(chunks);
  return { digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`, bytes };
}
