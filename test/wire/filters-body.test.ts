import http2 from "node:http2";
import { expect, test } from "vitest";
import { answering, ok, rawServer, until } from "./kit.ts";
import { bundle, filterRig, get } from "./filters-kit.ts";

const echo = () => rawServer(answering((head) => ok(head.replaceAll("\r\n", "|"))));

const REDACT = bundle(`
  body: { request: true, response: true, bytesMax: 2000 },
  async onRequest(request) {
    if (request.method !== "POST") return;
    return new Request(request, { body: (await request.text()).toUpperCase() });
  },
  async onResponse(response) {
    return new Response((await response.text()).replaceAll("secret", "***"), { status: response.status, headers: response.headers });
  }`);

test("a body filter changes both bodies and their lengths, chunked or not", async () => {
  await using upstream = await rawServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      if (!bytes.toString().includes("DONE")) return;
      socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nsec\r\n");
      socket.write("7\r\nret pin\r\n0\r\n\r\n");
    });
  });
  await using rig = await filterRig([upstream.port], [{ source: REDACT }]);
  await using client = await rig.client();
  client.write(
    "POST / HTTP/1.1\r\nhost: shop.test\r\naccept-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n4\r\nall \r\n",
  );
  client.write("4\r\ndone\r\n0\r\n\r\n");
  await client.untilText("*** pin");
  expect(client.text).toMatch(/content-length: 7\r\n[\s\S]*\r\n\r\n\*\*\* pin$/);
  expect(upstream.received[0]).toContain("content-length: 8\r\n");
  expect(upstream.received[0]).toContain("accept-encoding: identity\r\n");
  expect(upstream.received[0]).toMatch(/\r\n\r\nALL DONE$/);
});

test("a body over the bound is 413, a response over it 502, whatever the policy", async () => {
  await using upstream = await rawServer(answering(() => ok("s".repeat(3000))));
  await using rig = await filterRig([upstream.port], [{ source: REDACT, onFailure: "open" }]);
  const big = `POST / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\ncontent-length: 3000\r\n\r\n${"x".repeat(3000)}`;
  expect(await rig.ask(big)).toContain("x-gilliam-reason: filter_body_too_large");
  expect(upstream.received).toEqual([]);
  expect(await rig.ask(get("/"))).toContain("x-gilliam-reason: filter_response_too_large");
});

test("a filter that never answers costs its own request, and others go on beside it", async () => {
  await using upstream = await echo();
  const source = bundle(
    `timeoutMs: 1500, async onRequest(request) { if (request.path === "/never") await new Promise(() => {}); }`,
  );
  await using rig = await filterRig([upstream.port], [{ source }]);
  const never = rig.ask(get("/never"));
  expect(await rig.ask(get("/fine"))).toMatch(/^HTTP\/1\.1 200 /);
  expect(rig.events.map(({ path }) => path)).toEqual(["/fine"]);
  expect(await never).toContain("x-gilliam-reason: filter_timeout");
});

test("a client that leaves while a filter runs leaves nothing behind", async () => {
  await using upstream = await echo();
  const source = bundle(
    `timeoutMs: 60000, async onRequest(request) { if (request.path === "/never") await new Promise(() => {}); }`,
  );
  await using rig = await filterRig([upstream.port], [{ source }]);
  const client = await rig.client();
  client.write(get("/never"));
  await until(() => rig.filters.view().loaded[0]?.inUse === 1, "the filter to see the request");
  client.socket.resetAndDestroy();
  await until(() => rig.events.length === 1, "the end of the request");
  expect(rig.events[0]).toMatchObject({ status: 499, reason: "client_gone" });
  expect(rig.filters.view().loaded[0]?.inUse).toBe(0);
  expect(upstream.received).toEqual([]);
  expect(await rig.ask(get("/fine"))).toMatch(/^HTTP\/1\.1 200 /);
});

test("a filter routes to a declared service, counts within bounds, delays and annotates", async () => {
  await using upstream = await echo();
  await using other = await rawServer(answering(() => ok("other")));
  const source = bundle(`onRequest(request, context) {
    if (request.path === "/b") context.routeTo("web-b");
    if (request.path === "/c") context.routeTo("bank");
    context.count("path", request.path);
    context.annotate("who", "me");
    context.delay(20);
  }`);
  const use = { source, clusters: { "web-b": "web-b.shop" } };
  await using rig = await filterRig([upstream.port], [use], { other: [other.port] });
  expect(await rig.ask(get("/b"))).toMatch(/other$/);
  expect(await rig.ask(get("/c"))).toContain("x-gilliam-reason: filter_failed");
  for (let index = 0; index < 110; index += 1) {
    const answer = rig.ask(get(`/${index}`));
    if (index % 10 === 9) await answer;
  }
  await until(() => rig.events.length === 112, "every request");
  expect(rig.events[0]).toMatchObject({ cluster: "web-b.shop", notes: { who: "me" } });
  const events = (await rig.metrics())
    .split("\n")
    .filter((line) => line.startsWith("gilliam_filter_events_total"));
  expect(events).toHaveLength(101);
  expect(events.at(-1)).toMatch(/label="other".* \d+$/);
});

test("a new version takes over while requests run: none fails, none meets both versions", async () => {
  await using upstream = await echo();
  const version = (name: string) => ({
    source: bundle(`
      onRequest(request) { request.headers.set("x-in", "${name}"); },
      onResponse(response) { response.headers.set("x-out", "${name}"); }`),
  });
  await using rig = await filterRig([upstream.port], [version("v0")]);
  const stop = new AbortController();
  const seen = new Set<string>();
  const load = Array.from({ length: 4 }, async () => {
    while (!stop.signal.aborted) {
      const answer = await rig.ask(get("/"));
      expect(answer).toMatch(/^HTTP\/1\.1 200 /);
      const [, out] = /x-out: (v\d)/.exec(answer) ?? [];
      expect(answer).toContain(`x-in: ${out}|`);
      seen.add(out ?? "");
    }
  });
  for (const name of ["v1", "v2", "v3"]) {
    await rig.apply([version(name)]);
    await until(() => seen.has(name), name);
  }
  stop.abort();
  await Promise.all(load);
  await until(() => rig.filters.view().loaded.length === 1, "old versions to go");
  expect([...seen].toSorted()).toEqual(["v0", "v1", "v2", "v3"]);
});

test("a module that does not load refuses its own route, and says why", async () => {
  await using upstream = await echo();
  await using rig = await filterRig([upstream.port], [{ source: bundle("", 'throw new Error("no key");') }]);
  const closed = await rig.ask(get("/"));
  expect(closed).toContain("x-gilliam-reason: filter_unavailable");
  expect(closed).toContain("no key");
  expect(await rig.ask(get("/", "", "plain.test"))).toMatch(/^HTTP\/1\.1 200 /);
  await rig.apply([{ source: bundle("onRequest: 7") }]);
  expect(await rig.ask(get("/"))).toContain("`onRequest` must be a function");
});

test("streams of one HTTP/2 connection: a filter that hangs in one is cut off, the others are answered", async () => {
  await using upstream = await echo();
  const source = bundle(`timeoutMs: 300,
    onRequest(request) { if (request.path === "/hang") for (;;); request.headers.set("x-in", "1"); },
    onResponse(response) { response.headers.set("x-out", "1"); }`);
  await using rig = await filterRig([upstream.port], [{ source }]);
  const session = http2.connect(`http://127.0.0.1:${rig.port}`);
  const ask = (path: string, authority: string) =>
    new Promise<string>((resolve, reject) => {
      const stream = session.request({ ":path": path, ":authority": authority });
      let text = "";
      stream.on("response", (head) => {
        text += `${head[":status"]} ${String(head["x-out"])} ${String(head["x-gilliam-reason"])} `;
      });
      stream.on("data", (bytes: Buffer) => (text += bytes.toString()));
      stream.on("end", () => resolve(text)).on("error", reject);
    });
  try {
    const answers = await Promise.all([
      ask("/a", "shop.test"),
      ask("/hang", "shop.test"),
      ask("/b", "shop.test"),
      ask("/c", "plain.test"),
    ]);
    expect(answers[0]).toMatch(/^200 1 .*x-in: 1/);
    expect(answers[1]).toContain("503 undefined filter_timeout");
    expect(answers[2]).toMatch(/^200 1 .*x-in: 1/);
    expect(answers[3]).toMatch(/^200 undefined /);
  } finally {
    session.close();
  }
});
