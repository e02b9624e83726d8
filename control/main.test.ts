import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

let state = "";
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "control-main-"));
  writeFileSync(join(state, "token"), "admin-token-for-tests\n");
  writeFileSync(join(state, "host-token"), "host-token-for-tests\n");
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

function start(settings: Record<string, string> = {}) {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env["PATH"] ?? "", GILLIAM_STATE: state, GILLIAM_CONTROL_PORT: "0", ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const exited = new Promise<{ code: number | null; stderr: string }>((resolve) =>
    child.on("close", (code) => resolve({ code, stderr })),
  );
  const url = () => /"url":"([^"]+)"/.exec(stdout)?.[1];
  return { child, exited, url };
}

test("it listens, answers, and leaves in good order on SIGTERM; a stream that is open does not hold it", async () => {
  const { child, exited, url } = start();
  await expect.poll(url, { timeout: 20_000 }).toBeDefined();
  expect(await (await fetch(`${url() ?? ""}/v1/health`)).json()).toMatchObject({ status: "ok" });
  const events = await fetch(`${url() ?? ""}/v1/events`, {
    headers: { authorization: "Bearer admin-token-for-tests" },
  });
  child.kill("SIGTERM");
  expect(await exited).toEqual({ code: 0, stderr: "" });
  expect(await events.text()).toContain("retry:");
});

describe("what stands in the way is said in plain words, with exit code 1", () => {
  test("a port that is taken", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const { code, stderr } = await start({ GILLIAM_CONTROL_PORT: String(port) }).exited;
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^Port ${port} on 127\\.0\\.0\\.1 is taken`));
    if (process.platform === "linux") expect(stderr).toContain(`(process ${process.pid})`);
    expect(stderr).toContain("GILLIAM_CONTROL_PORT");
    await new Promise((resolve) => server.close(resolve));
  });

  test("a registry that is damaged", async () => {
    mkdirSync(join(state, "control"));
    writeFileSync(join(state, "control", "registry.db"), "");
    const { code, stderr } = await start().exited;
    expect(code).toBe(1);
    expect(stderr).toContain(`The registry ${join(state, "control", "registry.db")} is damaged`);
  });

  test("a token that is missing", async () => {
    rmSync(join(state, "host-token"));
    expect(await start().exited).toEqual({
      code: 1,
      stderr: `Control cannot read ${join(state, "host-token")}: ENOENT\n./bootstrap/up makes it; check GILLIAM_STATE and who owns the file.\n`,
    });
  });

  test("settings that are wrong, all of them", async () => {
    const { code, stderr } = await start({ GILLIAM_CONTROL_PORT: "x", GILLIAM_DRAIN: "30" }).exited;
    expect(code).toBe(1);
    expect(stderr).toContain("- GILLIAM_CONTROL_PORT must be");
    expect(stderr).toContain("- GILLIAM_DRAIN must be");
  });
});
