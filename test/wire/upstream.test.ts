import { expect, test } from "vitest";
import { answering, cluster, get, ok, rawServer, rig, until } from "./kit.ts";

const retry = (retriesMax: number) => ({ policy: { retry: { retriesMax } } });

/** Upstreams are not believed: whatever could be read in two ways is a 502, and never a word of it gets through. */
test.for([
  ["a status below 100", "HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n"],
  ["a status above 599", "HTTP/1.1 600 No\r\ncontent-length: 0\r\n\r\n"],
  ["a status of four digits", "HTTP/1.1 2000 No\r\ncontent-length: 0\r\n\r\n"],
  ["HTTP/2", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n"],
  ["HTTP/0.9", "hello, what do you want of me?\n"],
  [
    "both framings",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  ],
  ["two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"],
  ["a list of lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello"],
  ["a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello"],
  ["a coding that is not chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello"],
  ["chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
  ["a broken first chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"],
  ["a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\ncontent-length: 0\r\n\r\n"],
  ["a bare LF", "HTTP/1.1 200 OK\r\nX: a\ncontent-length: 0\r\n\r\n"],
  [
    "a bare CR, which would split the response",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\ncontent-length: 0\r\n\r\n",
  ],
  ["a NUL", "HTTP/1.1 200 OK\r\nX: a\u0000\r\ncontent-length: 0\r\n\r\n"],
  ["a reason with control characters", "HTTP/1.1 200 O\u0001K\r\ncontent-length: 0\r\n\r\n"],
  ["white space before a colon", "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n"],
  [
    "a change of protocol that nobody asked for",
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
  ],
  ["a flood of 1xx", "HTTP/1.1 102 Processing\r\n\r\n".repeat(40)],
  ["an endless head", `HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(20)}x: ${"y".repeat(100_000)}`],
  ["too many fields", `HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(300)}\r\n`],
] as const)("refused from upstream: %s", async ([, bytes]) => {
  await using server = await rawServer(answering(() => bytes));
  await using edge = await rig([server.port]);
  const answer = await edge.ask(get(), "next:");
  const last = answer.slice(answer.lastIndexOf("HTTP/1.1 502"));
  expect(last).toMatch(/^HTTP\/1\.1 502 Bad Gateway\r\n/);
  expect(last).toContain("x-gilliam-reason: bad_response\r\n");
  await until(
    () => server.sockets[0]!.destroyed || server.sockets[0]!.readableEnded,
    "the end of the connection",
  );
  expect(server.sockets).toHaveLength(1); // It is a fact, not an accident: not tried again.
});

test.for([
  [
    "behind a length",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
  ],
  [
    "behind the last chunk",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
  ],
  ["behind a 304", "HTTP/1.1 304 Not Modified\r\nx: hello\r\n\r\nevil"],
] as const)("bytes %s end the connection and reach nobody", async ([, bytes]) => {
  await using server = await rawServer(answering(() => bytes));
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  for (let count = 1; count <= 3; count += 1) {
    client.write(get());
    await client.until(({ text }) => text.split("hello").length - 1 === count, "the answer");
  }
  expect(client.text).not.toContain("evil");
  expect(server.sockets).toHaveLength(3);
});

test("bytes on an idle connection end it, and do not become the next answer", async () => {
  await using server = await rawServer(answering(() => ok("right")));
  await using edge = await rig([server.port]);
  await edge.ask(get(), "right");
  server.sockets[0]!.write(ok("evil!"));
  await until(() => server.sockets[0]!.readableEnded, "the end of the connection");
  expect(await edge.ask(get(), "right")).not.toContain("evil");
  expect(server.sockets).toHaveLength(2);
});

test("an upstream that answers before it is asked is not believed", async () => {
  await using server = await rawServer((socket) => socket.write(ok("evil!")));
  await using edge = await rig([server.port], { clusters: [cluster("web.shop", [server.port], retry(0))] });
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => edge.ask(get("/", "Connection: close\r\n"))),
  );
  for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 (?:502|200) /); // 200: it came after our request.
});

/** I2: may this request be sent again after the upstream took it and closed? */
test.for([
  { method: "GET", body: "", attempts: 3 },
  { method: "HEAD", body: "", attempts: 3 },
  { method: "PUT", body: "hello", attempts: 3 },
  { method: "DELETE", body: "", attempts: 3 },
  { method: "POST", body: "hello", attempts: 1 },
  { method: "POST", body: "", attempts: 1 },
  { method: "PATCH", body: "hello", attempts: 1 },
  { method: "BREW", body: "", attempts: 1 }, // Unknown: perhaps it does something.
])(
  "$method with body '$body' reaches a dying upstream $attempts times",
  async ({ method, body, attempts }) => {
    await using server = await rawServer((socket) => socket.once("data", () => socket.end()));
    await using edge = await rig([server.port]);
    const answer = await edge.ask(
      `${method} / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 502 /);
    expect(answer).toContain("x-gilliam-reason: upstream_closed\r\n");
    await until(() => edge.events.length === 1, "the record");
    expect(server.received).toHaveLength(attempts);
    for (const text of server.received) expect(text.endsWith(`\r\n\r\n${body}`)).toBe(true);
  },
);

test("a connection that closed while it was idle costs no request, whatever the budget", async () => {
  await using server = await rawServer((socket, index) => {
    let count = 0;
    socket.on("data", () => {
      count += 1;
      if (index < 5 && count === 2) socket.destroy(); // Closes just as the next request leaves.
      else socket.write(ok(`connection ${index}.`));
    });
  });
  await using edge = await rig([server.port], { clusters: [cluster("web.shop", [server.port], retry(0))] });
  await using client = await edge.client();
  for (let index = 0; index < 6; index += 1) {
    client.write(get());
    await client.untilText(`connection ${index}.`);
  }
  expect(edge.events.every(({ status, retries }) => status === 200 && retries === 0)).toBe(true);
  expect(edge.engine.report().ejected).toEqual({});
});

test("retries spend a budget, so an outage is not multiplied", async () => {
  await using one = await rawServer((socket) => socket.once("data", () => socket.destroy()));
  await using two = await rawServer((socket) => socket.once("data", () => socket.destroy()));
  const policy = {
    outlier: { consecutiveFailuresMax: 1_000_000 },
    retry: { budgetBurst: 0, budgetRatio: 0.2 },
  };
  await using edge = await rig([], { clusters: [cluster("web.shop", [one.port, two.port], { policy })] });
  await using client = await edge.client();
  for (let count = 1; count <= 100; count += 1) {
    client.write(get());
    await client.until(
      ({ text }) => text.split("HTTP/1.1 502").length - 1 === count && /next: .*\n$/.test(text),
      "502",
    );
  }
  expect(one.received.length + two.received.length).toBeLessThanOrEqual(121);
  expect(one.received.length + two.received.length).toBeGreaterThan(110);
});

test("a 503 of one endpoint is tried on another, for a request that may be sent twice", async () => {
  await using busy = await rawServer(answering(() => "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"));
  await using free = await rawServer(answering(() => ok("free")));
  const policy = { outlier: { consecutiveFailuresMax: 1_000_000 } };
  await using edge = await rig([], { clusters: [cluster("web.shop", [busy.port, free.port], { policy })] });
  for (let count = 0; count < 10; count += 1) expect(await edge.ask(get(), "free")).toContain("200 OK");
  let refused = 0;
  for (let count = 0; count < 10; count += 1) {
    const answer = await edge.ask(
      "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    if (answer.includes("503 Busy")) refused += 1;
  }
  expect(refused).toBeGreaterThan(0);
});

test("a connection that answered 503 may serve the next request while the first is tried elsewhere", async () => {
  await using busy = await rawServer(answering(() => "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"));
  await using free = await rawServer(answering(() => ok("free")));
  const policy = {
    connectionsPerEndpointMax: 1,
    outlier: { consecutiveFailuresMax: 1_000_000 },
    retry: { budgetBurst: 1000 },
  };
  await using edge = await rig([], { clusters: [cluster("web.shop", [busy.port, free.port], { policy })] });
  const answers = await Promise.all(
    Array.from({ length: 60 }, () => edge.ask(get("/", "Connection: close\r\n"))),
  );
  expect(answers.every((answer) => /^HTTP\/1\.1 (?:200|503) /.test(answer))).toBe(true);
  expect(edge.events.every(({ reason }) => reason === "")).toBe(true);
});

test.for([
  ["with a length", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"],
  ["in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n"],
] as const)("a response %s that breaks off is not taken for whole", async ([, bytes]) => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => {
      socket.write(bytes);
      setTimeout(() => socket.destroy(), 20);
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get());
  await client.until(({ closed }) => closed, "the end");
  expect(client.text).toContain("part");
  expect(client.error).toBe("ECONNRESET");
  expect(edge.events).toMatchObject([{ status: 200, reason: "upstream_closed" }]);
});

test("a response without a length ends with its connection, in chunks for the client", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\n\r\nall of it"));
  });
  await using edge = await rig([server.port]);
  expect(await edge.ask(get(), "0\r\n\r\n")).toMatch(/chunked\r\n.*\r\n\r\n9\r\nall of it\r\n0\r\n\r\n$/s);
  const old = await edge.ask("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n");
  expect(old).toMatch(/connection: close\r\n.*\r\n\r\nall of it$/s);
});

test("HTTP/1.0 clients get no chunks, and keep-alive only when they ask", async () => {
  const chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n";
  await using server = await rawServer(
    answering((head) => (head.includes("/chunks") ? chunks : ok("sized"))),
  );
  await using edge = await rig([server.port]);
  const request = (path: string) =>
    `GET ${path} HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n`;
  await using client = await edge.client();
  client.write(request("/"));
  await client.untilText("sized");
  expect(client.text).toContain("connection: keep-alive\r\n");
  client.write(request("/chunks"));
  await client.untilEnd();
  expect(client.text).toMatch(/connection: close\r\n.*\r\n\r\npart$/s);
});

test("HEAD, 204 and 304 have no body, whatever their fields say", async () => {
  await using server = await rawServer(
    answering((head) => {
      if (head.startsWith("HEAD")) return "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
      if (head.includes("/204")) return "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n";
      if (head.includes("/304")) return "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n";
      return ok("end");
    }),
  );
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write("HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
  client.write(get("/204") + get("/304") + get("/end"));
  await client.untilText("end");
  expect(client.text.match(/HTTP\/1\.1 \d+/g)).toEqual(
    ["200", "204", "304", "200"].map((code) => `HTTP/1.1 ${code}`),
  );
  expect(client.text).toContain("content-length: 1000\r\n");
  expect(server.sockets).toHaveLength(1);
});

test("100-continue and early hints pass, and an unasked 100 does not", async () => {
  await using server = await rawServer((socket) => {
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (text.includes("GET")) socket.write(`HTTP/1.1 100 Continue\r\n\r\n${ok("plain")}`);
      else if (text.includes("hello")) socket.write(ok("thanks"));
      else socket.write("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    });
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  await client.untilText("100 Continue");
  client.write("hello");
  await client.untilText("thanks");
  expect(client.text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 103", "HTTP/1.1 100", "HTTP/1.1 200"]);
  expect(await edge.ask(get(), "plain")).toMatch(/^HTTP\/1\.1 200 /);
});

test("an upgrade that is refused leaves the connection to HTTP", async () => {
  await using server = await rawServer(
    answering((head) =>
      head.includes("upgrade") ? "HTTP/1.1 426 No\r\ncontent-length: 0\r\n\r\n" : ok("http"),
    ),
  );
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write(get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n") + get("/next"));
  await client.untilText("http");
  expect(client.text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 426", "HTTP/1.1 200"]);
});

test("a response before the end of the request ends the connection behind it", async () => {
  await using server = await rawServer((socket) => {
    socket.once("data", () => socket.end("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig"));
  });
  await using edge = await rig([server.port]);
  await using client = await edge.client();
  client.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\nsome");
  await client.untilEnd();
  expect(client.text).toMatch(/^HTTP\/1\.1 413 .*connection: close\r\n.*big$/s);
  client.write("more of it");
  expect(edge.events).toMatchObject([{ status: 413, reason: "" }]);
});

/** Every wait has its end, its status and its reason. */
test.for([
  { what: "no response", policy: { responseTimeoutMs: 100 }, status: 504, reason: "response_timeout" },
  { what: "no whole answer", policy: { requestTimeoutMs: 100 }, status: 504, reason: "request_timeout" },
])("$what in time is a $status", async ({ policy, status, reason }) => {
  await using server = await rawServer(() => undefined);
  await using edge = await rig([], { clusters: [cluster("web.shop", [server.port], { policy })] });
  const answer = await edge.ask(get(), "next:");
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(answer).toContain(`x-gilliam-reason: ${reason}\r\n`);
  expect(server.received).toHaveLength(1);
});

test("slow heads and stalled bodies are cut off", async () => {
  await using server = await rawServer(() => undefined);
  await using edge = await rig([server.port], { limits: { headTimeoutMs: 100, bodyStallTimeoutMs: 100 } });
  await using slow = await edge.client();
  slow.write("GET / HT");
  await using stalled = await edge.client();
  stalled.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhell");
  await using silent = await edge.client();
  await Promise.all([slow.untilEnd(), stalled.untilEnd(), silent.untilEnd()]);
  expect(slow.text).toContain("x-gilliam-reason: head_timeout\r\n");
  expect(stalled.text).toContain("x-gilliam-reason: body_timeout\r\n");
  expect(silent.text).toBe("");
});

test("requests beyond the connections of an endpoint wait their turn", async () => {
  await using server = await rawServer((socket) => {
    socket.on("data", () => setTimeout(() => socket.write(ok("turn")), 10));
  });
  const policy = { connectionsPerEndpointMax: 2, pendingMax: 100 };
  await using edge = await rig([], { clusters: [cluster("web.shop", [server.port], { policy })] });
  const answers = await Promise.all(Array.from({ length: 20 }, () => edge.ask(get(), "turn")));
  expect(answers.every((answer) => answer.startsWith("HTTP/1.1 200"))).toBe(true);
  expect(server.sockets).toHaveLength(2);
});

test("requests beyond those that may wait are refused at once", async () => {
  await using server = await rawServer(() => undefined);
  const policy = { connectionsPerEndpointMax: 1, pendingMax: 1 };
  await using edge = await rig([], { clusters: [cluster("web.shop", [server.port], { policy })] });
  await using first = await edge.client();
  first.write(get());
  await until(() => (server.received[0] ?? "") !== "", "the first request");
  await using second = await edge.client();
  second.write(get());
  const answer = await edge.ask(get(), "next:");
  const late = edge.ask(get(), "next:");
  expect(answer + (await late)).toContain("x-gilliam-reason: overloaded\r\n");
});

test("connections beyond a listener's limit are told so", async () => {
  await using server = await rawServer(answering(() => ok("in")));
  await using edge = await rig([server.port], { limits: { connectionsPerListenerMax: 1 } });
  await using first = await edge.client();
  first.write(get());
  await first.untilText("in");
  expect(await edge.ask(get())).toContain("x-gilliam-reason: too_many_connections\r\n");
});
