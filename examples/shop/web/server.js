// The shop's pages. Calls the API on its local port; Gilliam leads that to a ready instance of `api`.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { renderPage, renderProblem } from "./page.js";

const API_URL = process.env.API_URL ?? "http://localhost:7001";
const INSTANCE = process.env.GILLIAM_INSTANCE ?? `web-${process.pid}`;
const RELEASE = process.env.GILLIAM_RELEASE ?? "0";

/** Headers that tie the calls of one request together; passed on as they came. */
const TRACE_HEADERS = ["x-request-id", "traceparent", "tracestate"];

const server = createServer((request, response) => {
  response.setHeader("x-served-by", `${INSTANCE} release ${RELEASE}`);
  route(request, response).catch((error) => {
    console.error(`${request.method} ${request.url}: ${error.message}`);
    if (response.headersSent) response.destroy();
    else
      send(request, response, error.status ?? 502, { error: error.message }, () =>
        renderProblem(error.message),
      );
  });
});

async function route(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://shop");
  const at = `${request.method} ${pathname}`;
  if (at === "GET /healthz") return send(request, response, 200, { ok: true });
  if (at === "GET /whoami")
    return send(request, response, 200, { instance: INSTANCE, release: Number(RELEASE) });
  if (at === "POST /orders") return placeOrder(request, response);
  if (at === "GET /" || at === "GET /orders") {
    const [products, orders] = await Promise.all([
      callApi(request, "/products"),
      callApi(request, "/orders"),
    ]);
    const facts = { web: `${INSTANCE} release ${RELEASE}`, api: products.servedBy, release: RELEASE };
    const view = {
      products: products.body,
      orders: orders.body,
      ordered: searchParams.get("ordered"),
      facts,
    };
    return send(request, response, 200, view, () => renderPage(view));
  }
  send(request, response, 404, { error: "there is no such page" }, () =>
    renderProblem("There is no such page."),
  );
}

/** The key makes an order count once: a form sent twice carries the same one. */
async function placeOrder(request, response) {
  const body = await readBody(request, 10_000);
  const isForm = (request.headers["content-type"] ?? "").startsWith("application/x-www-form-urlencoded");
  const wish = isForm ? Object.fromEntries(new URLSearchParams(body)) : parseJson(body);
  const order = await callApi(request, "/orders", { key: randomUUID(), ...wish });
  if (wantsPage(request))
    response.writeHead(303, { location: `/?ordered=${encodeURIComponent(order.body.key)}` }).end();
  else send(request, response, 201, { ...order.body, servedBy: order.servedBy });
}

/** One call to the API; `wish` makes it a POST. Its refusals come back with their own status. */
async function callApi(request, path, wish) {
  const headers = { accept: "application/json" };
  for (const name of TRACE_HEADERS) if (request.headers[name]) headers[name] = request.headers[name];
  const answer = await fetch(`${API_URL}${path}`, {
    headers: wish ? { ...headers, "content-type": "application/json" } : headers,
    method: wish ? "POST" : "GET",
    ...(wish ? { body: JSON.stringify(wish) } : {}),
    signal: AbortSignal.timeout(30_000),
  }).catch((error) => {
    throw problem(502, `the API did not answer: ${error.cause?.message ?? error.message}`);
  });
  const text = await answer.text();
  if (!answer.ok) throw problem(answer.status, `the API answered ${answer.status}: ${text.slice(0, 500)}`);
  return { body: JSON.parse(text), servedBy: answer.headers.get("x-served-by") ?? "unknown" };
}

function send(request, response, status, value, page) {
  const isPage = page !== undefined && wantsPage(request);
  const body = isPage ? page() : JSON.stringify(value);
  response.writeHead(status, {
    "content-type": isPage ? "text/html; charset=utf-8" : "application/json",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  response.end(body);
}

const wantsPage = (request) => (request.headers.accept ?? "").includes("text/html");

async function readBody(request, bytesMax) {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > bytesMax) throw problem(413, `an order is at most ${bytesMax} bytes long`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw problem(400, 'send a form, or JSON like {"product": 1, "quantity": 1}');
  }
}

const problem = (status, message) => Object.assign(new Error(message), { status });

server.keepAliveTimeout = 600_000; // Longer than any proxy keeps an idle connection, so that the proxy closes first.
server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? "127.0.0.1", () => {
  console.log(
    `web ${INSTANCE} of release ${RELEASE} listens on ${server.address().port}, its API is ${API_URL}`,
  );
});

// Finish what is in flight, then leave: by the time this signal comes no proxy sends anything new.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
