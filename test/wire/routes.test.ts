import { expect, test } from "vitest";
import { type RouteActions, type RouteMatch, routeId } from "../../model/route.ts";
import { LOCAL, answering, cluster, get, ok, rawServer, rig } from "./kit.ts";
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
