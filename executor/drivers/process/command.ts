import { spawn } from "node:child_process";
import { UserError } from "../../../base/errors.ts";

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How long a tool such as `ip` may take, in milliseconds. */
const TOOL_MS_MAX = 15_000;

/** Runs a tool of the system with nothing but a PATH; never throws for its exit code. */
export function runTool(
  argv: readonly string[],
  input = "",
  timeoutMs = TOOL_MS_MAX,
): Promise<CommandResult> {
  const [program = "", ...args] = argv;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { PATH: TOOL_PATH, LC_ALL: "C" },
      timeout: timeoutMs,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (bytes: Buffer) => (stdout += bytes.toString()));
    child.stderr.on("data", (bytes: Buffer) => (stderr += bytes.toString()));
    child.on("error", (error) => resolve({ code: 127, stdout, stderr: error.message }));
    child.on("close", (code) => resolve({ code: code ?? 137, stdout, stderr }));
    child.stdin.on("error", () => undefined); // It may end before it has read everything; its exit code tells.
    child.stdin.end(input);
  });
}

/** Like runTool, but a failure is a UserError that quotes the tool. */
export async function mustRun(argv: readonly string[], input = ""): Promise<string> {
  const { code, stdout, stderr } = await runTool(argv, input);
  if (code !== 0) {
    throw new UserError(`"${argv.join(" ")}" failed with exit code ${code}: ${stderr.trim()}`, {
      code: "tool_failed",
      status: 500,
    });
  }
  return stdout;
}

export const TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
