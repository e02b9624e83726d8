import { describe, expect, test } from "vitest";
import { answering, ok, rawServer } from "./kit.ts";
import { bundle, filterRig, get } from "./filters-kit.ts";

const echo = () => rawServer(answering((head) => ok(head.replaceAll("\r\n", "|"))));
const LANES = [
  { lane: "inside the proxy", isolateAll: false },
  { lane: "in a process of its own", isolateAll: true },
];

describe.for(LANES)("a filter that runs $lane", ({ isolateAll }) => {
  test("changes head and target of a request, and the head of its response", async () => {
    await using upstream = await echo();
    const source = bundle(`
      onRequest(request, context) {
        request.target = "/v2" + request.path + "?q=" + request.query.get("q");
        request.headers.set("X-User", "u1 " + request.headers.get("ACCEPT") + " " + context.options.tier);
        request.headers.delete("cookie");
        context.state.set("seen", request.method);
      },
      onResponse(response, context) {
        response.status = 201;
        response.headers.set("x-seen", context.state.get("seen") + " " + context.to + " " + context.from);
      }`);
    await using rig = await filterRig([upstream.port], [{ source, options: { tier: "gold" } }], {
      isolateAll,
    });
    const answer = await rig.ask(get("/a?q=7", "accept: text/html\r\naccept: text/plain\r\ncookie: a=1\r\n"));
    expect(answer).toMatch(/^HTTP\/1\.1 201 /);
    expect(answer).toContain("x-seen: GET web.shop edge\r\n");
    expect(answer).toContain("GET /v2/a?q=7 HTTP/1.1|");
    expect(answer).toContain("x-user: u1 text/html, text/plain gold|");
    expect(answer).not.toContain("cookie");
  });

  test("answers in place of the service", async () => {
    await using upstream = await echo();
    const source = bundle(
      `onRequest() { return { status: 401, headers: { "www-authenticate": "Bearer" }, body: "no" }; }`,
    );
    await using rig = await filterRig([upstream.port], [{ source }], { isolateAll });
    const answer = await rig.ask(get("/"));
    expect(answer).toMatch(/^HTTP\/1\.1 401 /);
    expect(answer).toContain("www-authenticate: Bearer\r\n");
    expect(answer).toMatch(/content-length: 2\r\n[\s\S]*\r\n\r\nno$/);
    expect(upstream.received).toEqual([]);
    expect(rig.events[0]).toMatchObject({ status: 401, reason: "" });
  });

  test("that throws is counted and refuses closed, lets pass open", async () => {
    await using upstream = await echo();
    const source = bundle(
      `onRequest(request) { request.headers.set("x-half", "1"); throw new Error("oh"); }`,
    );
    await using rig = await filterRig([upstream.port], [{ source }], { isolateAll });
    const closed = await rig.ask(get("/"));
    expect(closed).toMatch(/^HTTP\/1\.1 500 /);
    expect(closed).toContain("x-gilliam-reason: filter_failed");
    expect(closed).toContain("oh");
    await rig.apply([{ source, onFailure: "open" }]);
    const open = await rig.ask(get("/"));
    expect(open).toMatch(/^HTTP\/1\.1 200 /);
    expect(open).not.toContain("x-half");
    expect(await rig.metrics()).toMatch(/gilliam_filter_runs_total\{.*outcome="threw".*\} 2/);
  });

  test("that hangs is cut off, and other routes go on", async () => {
    await using upstream = await echo();
    const source = bundle(`timeoutMs: 600, onRequest(request) { if (request.path === "/hang") for (;;); }`);
    await using rig = await filterRig([upstream.port], [{ source }], { isolateAll });
    const before = rig.ask(get("/fine"));
    expect(await before).toMatch(/^HTTP\/1\.1 200 /);
    const hanging = rig.ask(get("/hang"));
    const others = await Promise.all(Array.from({ length: 20 }, () => rig.ask(get("/", "", "plain.test"))));
    expect(others.map((text) => text.slice(0, 15))).toEqual(
      Array.from({ length: 20 }, () => "HTTP/1.1 200 OK"),
    );
    const answer = await hanging;
    expect(answer).toMatch(/^HTTP\/1\.1 503 /);
    expect(answer).toContain("x-gilliam-reason: filter_timeout");
    expect(await rig.ask(get("/fine"))).toMatch(/^HTTP\/1\.1 200 /);
    expect(rig.events.filter(({ status }) => status !== 200)).toHaveLength(1);
  });

  test("that allocates without end is cut off, and other routes go on", async () => {
    await using upstream = await echo();
    const source = bundle(
      `timeoutMs: 20000, onRequest(request) { if (request.path === "/eat") { const all = []; for (;;) all.push(new Array(1e5).fill(1.5)); } }`,
    );
    await using rig = await filterRig([upstream.port], [{ source }], { isolateAll });
    expect(await rig.ask(get("/fine"))).toMatch(/^HTTP\/1\.1 200 /);
    const eating = rig.ask(get("/eat"));
    expect(await rig.ask(get("/", "", "plain.test"))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await eating).toContain("x-gilliam-reason: filter_memory");
    expect(await rig.ask(get("/fine"))).toMatch(/^HTTP\/1\.1 200 /);
  });
});
