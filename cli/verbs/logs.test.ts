import { afterEach, beforeEach, expect, test } from "vitest";
import { Bench } from "../testing/bench.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.start(process.env["PATH"]);
});
afterEach(() => bench[Symbol.asyncDispose]());

const line = (change: object) => ({
  atMs: 1_000,
  service: "web",
  instanceId: "shop-web-r4-k3x9q",
  release: 4,
  stream: "stdout",
  text: "hello",
  ...change,
});

test("lines carry the name of their instance and no control characters", async () => {
  bench.control.handlers.logs = () => ({
    lines: [line({}), line({ service: "api", instanceId: "shop-api-r1-zzzzz", text: "\u001b[2Jx" })],
  });
  const { stdout } = await bench.gilliam(["logs"]);
  expect(stdout).toBe("web.k3x9q │ hello\napi.zzzzz │ x\n");
});

test("several services are filtered, one is asked for", async () => {
  bench.control.handlers.logs = () => ({ lines: [line({}), line({ service: "db" })] });
  expect((await bench.gilliam(["logs", "web", "api", "--json"])).stdout.trim().split("\n")).toHaveLength(1);
  await bench.gilliam(["logs", "web", "-n", "5"]);
  expect(bench.called("logs").at(-1)?.query).toEqual({ service: "web", tail: "5" });
});

test("following goes on where it was when control comes back", async () => {
  const answers = [[line({})], undefined, [line({}), line({ atMs: 2_000, text: "again" })]];
  bench.control.handlers.logs = () => {
    if (answers.length === 2) {
      answers.shift();
      return { broken: true };
    }
    const lines = answers.shift();
    return lines === undefined ? { problem: { status: 404, code: "gone", detail: "gone" } } : { lines };
  };
  const { stdout, stderr } = await bench.gilliam(["logs", "-f"]);
  expect(stdout).toBe("web.k3x9q │ hello\nweb.k3x9q │ again\n");
  expect(stderr).toContain("waiting for it");
});

test("exec passes the command, standard input, output and exit code through", async () => {
  bench.control.handlers.exec = () => ({
    lines: [
      { kind: "output", stream: "stdout", data: "out" },
      { kind: "output", stream: "stderr", data: "err" },
      { kind: "exit", code: 7 },
    ],
  });
  const result = await bench.command(["exec", "web", "--", "cat", "-A", "--json"], { stdin: "in" });
  expect(result).toEqual({ code: 7, stdout: "out", stderr: "err" });
  expect(bench.called("exec")[0]).toMatchObject({
    parameter: "shop-web-r4-k3x9q",
    body: { command: ["cat", "-A", "--json"], stdin: Buffer.from("in").toString("base64") },
  });
});

test("exec names what there is when it finds nothing", async () => {
  const { code, stderr } = await bench.gilliam(["exec", "wbe", "ls"]);
  expect(code).toBe(1);
  expect(stderr).toContain('No instance "wbe" exists in shop\nServices with instances: web.');
});

test("run fails in plain words", async () => {
  bench.control.handlers.run = () => ({ lines: [{ kind: "failed", message: "No host has room." }] });
  const { code, stderr } = await bench.gilliam(["run", "web", "true"]);
  expect({ code, stderr }).toEqual({ code: 1, stderr: "gilliam: No host has room.\n" });
});
