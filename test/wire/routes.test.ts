import { expect, test } from "vitest";
import { ManualClock } from "../../base/manual-clock.ts";
import { type RouteActions, type RouteMatch, routeId } from "../../model/route.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";
import { askHttp2 } from "./http2-client.ts";

/** Routes and what they do, through raw sockets in HTTP/1.1 and a client of HTTP/2. */

function route(path: string, actions?: RouteActions, match?: RouteMatch) {
  return {
    id: routeId({ host: "shop.test", path, match }),
    host: "shop.test",
    path,
    cluster: "web.shop",
    ...(actions === undefined ? {} : { actions }),
    ...(match === undefined ? {} : { match }),
  };
}

/** The request line of what the server got last. */
const lineOf = (received: string | undefined) => received?.slice(0, received.indexOf("\r\n"));

test("a target is rewritten on its way, and the log shows what the client wrote", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port], { routes: [route("/api", { rewrite: "/v2" })] });
  await edge.ask(get("/api/x?q=1"), "hello");
  expect(lineOf(server.received[0])).toBe("GET /v2/x?q=1 HTTP/1.1");
  expect(edge.events[0]?.path).toBe("/api/x?q=1");
  const { body } = await askHttp2(edge.port, { ":path": "/api/y" });
  expect(body).toBe("hello");
  expect(server.received.join("")).toContain("GET /v2/y HTTP/1.1\r\n");
});

test("what would become another path than was meant is refused, and reaches nobody", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using edge = await rig([server.port], {
    routes: [route("/f/:a", { rewrite: "/.{a}" }, { kind: "pattern" })],
  });
  expect(await edge.ask(get("/f/."))).toMatch(
    /^HTTP\/1\.1 400 Bad Request\r\n.*x-gilliam-reason: bad_target/s,
  );
  expect((await askHttp2(edge.port, { ":path": "/f/%2e" })).head[":status"]).toBe(400);
  expect(server.received).toEqual([]);
});

test("a client is sent elsewhere, whatever it writes", async () => {
  await using edge = await rig([], {
    routes: [
      route("/", { redirect: { to: "https://{host}{path}{query}", status: 301 } }),
      route("/go/*rest", { redirect: { to: "/{rest}", status: 303 } }, { kind: "pattern" }),
    ],
  });
  const answer = await edge.ask(get("/a/b?c=%0d%0aset-cookie:x"), "\r\n\r\n");
  expect(answer).toMatch(/^HTTP\/1\.1 301 Moved Permanently\r\n/);
  expect(answer).toContain("location: https://shop.test/a/b?c=%0d%0aset-cookie:x\r\ncontent-length: 0\r\n");
  expect(await edge.ask(get("/go//evil.test/x"), "\r\n\r\n")).toContain("location: /evil.test/x\r\n");
  const { head } = await askHttp2(edge.port, { ":path": "/a", ":method": "HEAD" });
  expect([head[":status"], head["location"]]).toEqual([301, "https://shop.test/a"]);
  expect(edge.events.map(({ status, reason }) => [status, reason])).toEqual([
    [301, ""],
    [303, ""],
    [301, ""],
  ]);
});

test("a route may answer by itself, to the next request on the same connection too", async () => {
  const respond = { status: 410, type: "text/html", body: "<p>gone</p>" };
  await using edge = await rig([], { routes: [route("/", { respond })] });
  await using client = await edge.client();
  client.write(`${get()}HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n${get("/last")}`);
  await client.until(({ text }) => text.split("HTTP/1.1 410 Gone").length === 4, "three answers");
  expect(client.text.split("<p>gone</p>")).toHaveLength(3); // HEAD has none.
  expect(client.text).toContain("content-type: text/html\r\ncontent-length: 11\r\n");
  const { head, body } = await askHttp2(edge.port, {});
  expect([head[":status"], body]).toEqual([410, "<p>gone</p>"]);
});

test("a body that nobody wants is swallowed, and the connection ends", async () => {
  await using edge = await rig([], {
    routes: [route("/", { respond: { status: 200, type: "a/b", body: "no" } })],
  });
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\n12345");
  await client.untilText("no");
  expect(client.text).toContain("connection: close\r\n");
  client.socket.end();
  await client.untilEnd();
});

test("fields of requests and responses are changed on both protocols", async () => {
  await using server = await rawServer(answering(() => ok("hello", "Server: app\r\nX-Kept: 1\r\n")));
  const actions = {
    requestHeaders: { set: { "x-tier": "gold" }, remove: ["cookie"] },
    responseHeaders: { remove: ["server"], add: { "x-frame-options": "DENY" } },
  };
  await using edge = await rig([server.port], { routes: [route("/", actions)] });
  const answer = await edge.ask(get("/", "Cookie: a=b\r\nX-Tier: lead\r\nx-tier: tin\r\n"), "hello");
  expect(answer).toContain("X-Kept: 1\r\nx-frame-options: DENY\r\n");
  expect(answer).not.toContain("Server");
  expect(server.received[0]).toContain("\r\nx-tier: gold\r\n");
  expect(server.received[0]).not.toMatch(/cookie|lead|tin/i);
  const { head } = await askHttp2(edge.port, { cookie: "a=b" });
  expect([head["server"], head["x-frame-options"], head["x-kept"]]).toEqual([undefined, "DENY", "1"]);
});

test("the calls of a declared dependency are changed as well, and those of others are not", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [server.port])],
    routes: [],
    edges: [
      {
        id: "web.shop/api",
        from: "web.shop",
        dependency: "api",
        port: 7001,
        protocol: "http",
        cluster: "api.shop",
        actions: { requestHeaders: { set: { "x-tier": "gold" } } },
      },
    ],
    listener: LOCAL,
  });
  const other = await mesh.engine.listen(
    { ...LOCAL, id: "cart-1/api", from: "cart.shop" },
    { host: "127.0.0.1", port: 0 },
  );
  await mesh.ask(get(), "hello");
  const response = await fetch(`http://127.0.0.1:${other.address.port}/`);
  expect(await response.text()).toBe("hello");
  expect(server.received.join("").match(/x-tier: gold/g)).toHaveLength(1);
});

test("method, field and query decide between routes of one path", async () => {
  await using one = await rawServer(answering(() => ok("one!!")));
  await using two = await rawServer(answering(() => ok("two!!")));
  await using edge = await rig([], {
    clusters: [cluster("web.shop", [one.port]), cluster("api.shop", [two.port])],
    routes: [
      route("/"),
      { ...route("/", undefined, { methods: ["GET"], query: { v: "2" } }), cluster: "api.shop" },
      { ...route("/", undefined, { headers: { "x-beta": "1" } }), cluster: "api.shop" },
    ],
  });
  const answers = await Promise.all([
    edge.ask(get("/"), "!!"),
    edge.ask(get("/?v=2"), "!!"),
    edge.ask(get("/", "X-Beta: 1\r\n"), "!!"),
    edge.ask(get("/", "X-Beta: 2\r\n"), "!!"),
  ]);
  expect(answers.map((text) => text.slice(-5))).toEqual(["one!!", "two!!", "two!!", "one!!"]);
  expect((await askHttp2(edge.port, { ":path": "/?v=2" })).body).toBe("two!!");
});

test("a configuration with an action that could break a message is refused whole", async () => {
  await using edge = await rig([]);
  const bad = { responseHeaders: { set: { "transfer-encoding": "chunked" } } };
  const config = { epoch: 2, clusters: [cluster("web.shop", [])], edges: [], routes: [route("/", bad)] };
  expect(edge.engine.apply(config)).toEqual({
    ok: false,
    reason: 'route "shop.test/": "transfer-encoding" belongs to the proxy',
  });
  expect(edge.engine.epoch).toBe(1);
});

test("beyond a rate limit it is a 429 that says when, on both protocols, and others are not touched", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const rateLimit = { requests: 2, windowMs: 60_000, burst: 2, key: { header: "x-key" } };
  await using edge = await rig([server.port], { routes: [route("/", { rateLimit })] });
  expect(await edge.ask(get("/", "X-Key: a\r\n"), "hello")).toContain(
    'ratelimit-policy: "default";q=2;w=60\r\nratelimit: "default";r=1;t=30\r\n',
  );
  expect((await askHttp2(edge.port, { "x-key": "a" })).head["ratelimit"]).toBe('"default";r=0;t=60');
  const refused = await edge.ask(get("/", "X-Key: a\r\n"), "rate_limited:");
  expect(refused).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\n/);
  expect(refused).toContain("retry-after: 30\r\n");
  const { head } = await askHttp2(edge.port, { "x-key": "a" });
  expect([head[":status"], head["retry-after"], head["x-gilliam-reason"]]).toEqual([
    429,
    "30",
    "rate_limited",
  ]);
  expect(await edge.ask(get("/", "X-Key: b\r\n"), "hello")).toContain("200 OK");
  expect(edge.events.map(({ reason }) => reason)).toEqual(["", "", "rate_limited", "rate_limited", ""]);
});

test("a new configuration does not forget who asked how often", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const rateLimit = { requests: 1, windowMs: 60_000, burst: 1, key: "route" as const };
  const routes = [route("/", { rateLimit })];
  await using edge = await rig([server.port], { routes });
  await edge.ask(get(), "hello");
  const config = { epoch: 2, clusters: [cluster("web.shop", [server.port])], edges: [], routes };
  expect(edge.engine.apply(config)).toEqual({ ok: true });
  expect(await edge.ask(get(), "rate_limited:")).toContain("429");
});

test("a fault delays and aborts those who asked for it", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const clock = new ManualClock();
  const fault = { delayMs: 5_000, abort: 418, percent: 100, header: "x-fault" };
  await using edge = await rig([server.port], { routes: [route("/", { fault })], clock });
  expect(await edge.ask(get(), "hello")).toContain("200 OK");
  await using client = await edge.client();
  client.write(get("/", "X-Fault: 1\r\n"));
  await until(() => edge.events.length === 1, "the first answer's event");
  await clock.advance(4_900);
  expect(client.text).toBe("");
  await until(() => clock.pendingCount > 0, "the deadline to be set");
  await clock.advance(5_200);
  await client.untilText("fault_injected:");
  expect(client.text).toMatch(/^HTTP\/1\.1 418 /);
});

test("a delayed request with a body goes on when its time has come, and a client may leave before", async () => {
  await using server = await rawServer((socket) => {
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString();
      if (text.endsWith("12345")) socket.write(ok("hello"));
    });
  });
  const fault = { delayMs: 120, percent: 100 };
  await using edge = await rig([server.port], { routes: [route("/", { fault })] });
  await using gone = await edge.client();
  gone.write(get("/gone"));
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\n12");
  gone.socket.resetAndDestroy();
  client.write("345");
  await client.untilText("hello");
  expect(server.received).toHaveLength(1);
  expect(edge.events.map(({ path, reason }) => [path, reason])).toEqual([
    ["/gone", "client_gone"],
    ["/", ""],
  ]);
});

test("a route in maintenance shows its page and says when to come back", async () => {
  const maintenance = { status: 503, retryAfterSeconds: 90, type: "text/html", body: "<p>soon</p>" };
  await using edge = await rig([], { routes: [route("/", { maintenance })] });
  const answer = await edge.ask(get(), "<p>soon</p>");
  expect(answer).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/);
  expect(answer).toContain("retry-after: 90\r\nx-gilliam-reason: maintenance\r\n");
  const { head } = await askHttp2(edge.port, {});
  expect([head[":status"], head["retry-after"]]).toEqual([503, "90"]);
});

test("requests are held while an operator says so, bounded, and go on when it is over", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const policy = { pendingMax: 2 };
  const held = { pause: { kind: "hold", id: "1", forMs: 60_000 }, policy };
  await using edge = await rig([], { clusters: [cluster("web.shop", [server.port], held)] });
  const first = edge.ask(get("/1"), "hello");
  const second = askHttp2(edge.port, { ":path": "/2" });
  await edge.untilWaiting(2);
  expect(await edge.ask(get("/full"), "overloaded:")).toContain("retry-after: 1\r\n");
  const config = { edges: [], routes: [route("/")] };
  const free = [cluster("web.shop", [server.port], { policy })];
  expect(edge.engine.apply({ epoch: 2, clusters: free, ...config })).toEqual({ ok: true });
  expect(await first).toContain("200 OK");
  expect((await second).body).toBe("hello");
});

test("a client that leaves while it is held makes room for another", async () => {
  const held = { pause: { kind: "hold", id: "1", forMs: 60_000 }, policy: { pendingMax: 1 } };
  await using edge = await rig([], { clusters: [cluster("web.shop", [1], held)] });
  const client = await edge.client();
  client.write(get("/gone"));
  await edge.untilWaiting(1);
  client.socket.resetAndDestroy();
  await edge.untilWaiting(0);
  expect(edge.events[0]?.reason).toBe("client_gone");
});

test("a hold ends by itself", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const held = { pause: { kind: "hold", id: "1", forMs: 200 } };
  await using edge = await rig([], { clusters: [cluster("web.shop", [server.port], held)] });
  expect(await edge.ask(get(), "hello")).toContain("200 OK");
  expect(edge.events[0]?.durationMs).toBeGreaterThan(100);
});

test("a service in maintenance answers for itself to the public and to other services", async () => {
  const closed = { pause: { kind: "maintenance", retryAfterSeconds: 60 } };
  await using edge = await rig([], { clusters: [cluster("web.shop", [1], closed)] });
  expect(await edge.ask(get(), "maintenance:")).toContain("retry-after: 60\r\n");
  await using mesh = await rig([], {
    clusters: [cluster("api.shop", [1], closed)],
    routes: [],
    listener: LOCAL,
  });
  expect(await mesh.ask(get(), "maintenance:")).toContain("503 Service Unavailable");
});

test("a route may wait longer for an instance than others", async () => {
  await using server = await rawServer(answering(() => ok("hello")));
  const clusters = (ports: number[]) => [cluster("web.shop", ports)];
  const routes = [route("/"), route("/patient", { holdMs: 60_000 })];
  await using edge = await rig([], { clusters: clusters([]), routes, limits: { pendingTimeoutMs: 100 } });
  const patient = edge.ask(get("/patient"), "hello");
  expect(await edge.ask(get(), "no_endpoint:")).toContain("503");
  edge.engine.apply({ epoch: 2, clusters: clusters([server.port]), edges: [], routes: [...routes] });
  expect(await patient).toContain("200 OK");
});

test("a user's requests go to one instance by consistent hash", async () => {
  const servers = await Promise.all(
    [0, 1, 2].map((index) => rawServer(answering(() => ok(`from ${index}`)))),
  );
  const policy = { balancing: "maglev", hash: { by: "cookie", name: "user" } };
  const ports = servers.map(({ port }) => port);
  await using edge = await rig([], { clusters: [cluster("web.shop", ports, { policy })] });
  const homes = new Set<string>();
  for (const user of ["ann", "bob", "cy", "dee", "eve", "fay"]) {
    const answers = await Promise.all(
      [0, 1, 2].map(() => edge.ask(get("/", `Cookie: a=b; user=${user}\r\n`), "from")),
    );
    const from = new Set(answers.map((text) => text.slice(-1)));
    expect(from.size).toBe(1);
    homes.add([...from].join(""));
  }
  expect(homes.size).toBeGreaterThan(1);
  await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
});
