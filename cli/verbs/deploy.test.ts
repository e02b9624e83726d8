import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DeployRequest } from "../../model/api.ts";
import { Bench } from "../testing/bench.ts";
import { formation, instance, service } from "../testing/samples.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.start(process.env["PATH"]);
});
afterEach(() => bench[Symbol.asyncDispose]());

test("sends only what is missing, shows the plan, waits, and says where it is", async () => {
  const first = await bench.command(["deploy"]);
  expect(first).toMatchObject({ code: 0, stdout: "shop is on release 5.\n  http://shop.localhost:8080\n" });
  expect(first.stderr).toContain("shop: release 4 → 5");
  const { sources } = DeployRequest.parse(bench.called("deploy")[0]?.body);
  expect([...bench.control.blobs.keys()]).toEqual([sources["web"]]);
  const second = await bench.gilliam(["deploy"]);
  expect(second.stderr).toContain("Sources are there already");
});

test("asks control to stage, and waits for nothing", async () => {
  const { stdout } = await bench.gilliam(["deploy", "--stage"]);
  expect(bench.called("deploy")[0]?.body).toMatchObject({ mode: "stage" });
  expect(bench.called("formation")).toEqual([]);
  expect(stdout).toContain(
    "Release 5 of shop is staged. Send it a share: gilliam canary web --release 5 --weight 10",
  );
});

test("follows progress line by line and ends when it is settled", async () => {
  const states = [
    service({ state: "changing", ready: 0, explanation: "Its image is being built." }),
    service({ state: "changing", ready: 1, explanation: "web runs for 900ms and does not answer." }),
    service({ state: "changing", ready: 1, explanation: "web runs for 1s and does not answer." }),
    service(),
  ];
  bench.control.handlers.formation = () => ({
    value: formation({ services: [states.shift() ?? service()] }),
  });
  const { code, stderr } = await bench.gilliam(["deploy"]);
  expect(code).toBe(0);
  expect(stderr).toContain(
    "  web: 0 of 2 ready; Its image is being built.\n  web: 1 of 2 ready; web runs for 900ms and does not answer.\nshop is settled\n",
  );
});

test("a failed build ends it at once, with the last lines and what still serves", async () => {
  const explanation =
    'Its image could not be built: `npm ci` ended with 1. Last lines: "no such package". Mend it and deploy again.';
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "failing", explanation })] }),
  });
  const { code, stderr, stdout } = await bench.gilliam(["deploy"]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toContain(`gilliam: Release 5 of shop does not become ready\n  web: ${explanation}\n`);
  expect(stderr).toContain("Release 4 keeps serving; `gilliam rollback --formation shop` gives this one up.");
});

test("a crash loop ends it; a first crash does not", async () => {
  let asked = 0;
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "failing", explanation: "exited with code 1." })] }),
  });
  bench.control.handlers.instances = () => {
    asked += 1;
    return { value: [instance({ phase: "failed", restarts: asked })] };
  };
  const { code } = await bench.gilliam(["deploy"]);
  expect({ code, asked }).toEqual({ code: 1, asked: 3 });
});

test("what a crashing instance wrote last is shown", async () => {
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "failing", explanation: "web exited with code 1." })] }),
  });
  const lastLines = ["Error: Cannot find module", "\u001b[2JNode.js v24"];
  bench.control.handlers.instances = () => ({
    value: [instance({ phase: "failed", restarts: 3, lastLines })],
  });
  const { stderr } = await bench.gilliam(["deploy"]);
  expect(stderr).toContain(
    "  web: web exited with code 1.\n    │ Error: Cannot find module\n    │ Node.js v24\n",
  );
});

test("a wait goes on while control restarts", async () => {
  let asked = 0;
  bench.control.handlers.formation = () => {
    asked += 1;
    return asked === 2
      ? { broken: true }
      : { value: formation({ services: [service(asked > 2 ? {} : { state: "changing" })] }) };
  };
  const { code, stderr } = await bench.gilliam(["deploy"]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/Cannot reach Gilliam's control at .*: the connection broke; waiting for it/);
});

test("a service that was failing before does not fail the deploy, but is named", async () => {
  const services = [
    service(),
    service({ name: "ledger", ready: 0, state: "failing", explanation: "It crashed." }),
  ];
  bench.control.handlers.formation = () => ({ value: formation({ services }) });
  const { code, stderr } = await bench.gilliam(["deploy"]);
  expect(code).toBe(0);
  expect(stderr).toContain("! Not part of this change: ledger: 0 of 2 ready; It crashed.");
});

test("a wait has an end", async () => {
  bench.control.handlers.formation = () => ({
    value: formation({ services: [service({ state: "waiting", explanation: "No host has room." })] }),
  });
  const { code, stderr } = await bench.gilliam(["deploy", "--timeout", "500ms"]);
  expect(code).toBe(1);
  expect(stderr).toContain("does not become ready within 1 seconds\n  web: No host has room.");
});

test("says which folder is missing", async () => {
  rmSync(join(bench.folder, "web"), { recursive: true });
  const { code, stderr } = await bench.gilliam(["plan"]);
  expect(code).toBe(2);
  expect(stderr).toContain('processes.web.source "./web": there is no such folder');
});
