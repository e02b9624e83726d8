import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { API_ROUTES, type ApiRouteName } from "../../model/api-routes.ts";
import type { Problem } from "../../model/api.ts";

export interface FakeCall {
  readonly route: ApiRouteName;
  readonly parameter: string;
  readonly query: Readonly<Record<string, string>>;
  readonly body: unknown;
}
/** What a route answers: a value, lines for a stream, or a problem. Checked against the model like a real one. */
type FakeAnswer =
  | { value: unknown }
  | { lines: readonly unknown[] }
  /** The connection breaks before anything is said. */
  | { broken: true }
  | { problem: Partial<Problem> & { status: number } };
export type FakeHandler = (call: FakeCall) => FakeAnswer;

const TOKEN = "let-me-in";

/** Stands in for control: answers by table, refuses whatever does not follow the model, remembers what was asked. */
export class FakeControl implements AsyncDisposable {
  readonly calls: FakeCall[] = [];
  readonly blobs = new Map<string, Buffer>();
  readonly handlers: Partial<Record<ApiRouteName, FakeHandler>> = {};
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  url = "";
  readonly token = TOKEN;

  static async start(handlers: FakeControl["handlers"]): Promise<FakeControl> {
    const control = new FakeControl();
    Object.assign(control.handlers, handlers);
    await new Promise<void>((resolve) => control.#server.listen(0, "127.0.0.1", resolve));
    control.url = `http://127.0.0.1:${(control.#server.address() as AddressInfo).port}`;
    return control;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const url = new URL(request.url ?? "/", "http://control");
    if (request.headers.authorization !== `Bearer ${TOKEN}`) {
      sendProblem(response, { status: 401, code: "unauthorized", detail: "This token is not known" });
      return;
    }
    const blob = /^\/v1\/blobs\/(sha256:[0-9a-f]{64})$/.exec(url.pathname)?.[1];
    if (blob !== undefined) {
      if (request.method === "PUT") this.blobs.set(blob, Buffer.concat(chunks));
      response.writeHead(request.method === "PUT" ? 201 : this.blobs.has(blob) ? 200 : 404).end();
      return;
    }
    const found = findRoute(request.method ?? "", url.pathname);
    const handler = found && this.handlers[found.name];
    if (found === undefined || handler === undefined) {
      sendProblem(response, {
        status: 404,
        code: "no_such_route",
        detail: `Nothing at ${request.method} ${url.pathname}`,
      });
      return;
    }
    const route = API_ROUTES[found.name];
    const query = Object.fromEntries(url.searchParams);
    if ("query" in route) route.query.parse(query);
    const body: unknown =
      "body" in route ? route.body.parse(JSON.parse(Buffer.concat(chunks).toString())) : undefined;
    const call = { route: found.name, parameter: found.parameter, query, body };
    this.calls.push(call);
    const answer = handler(call);
    if ("broken" in answer) request.socket.destroy();
    else if ("problem" in answer) sendProblem(response, answer.problem);
    else if ("lines" in answer) {
      response.writeHead(200, { "content-type": "application/x-ndjson" });
      for (const line of answer.lines) response.write(`${JSON.stringify(route.answer.parse(line))}\n`);
      response.end();
    } else {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(route.answer.parse(answer.value)));
    }
  }
}

function findRoute(method: string, pathname: string): { name: ApiRouteName; parameter: string } | undefined {
  for (const [name, route] of Object.entries(API_ROUTES)) {
    const pattern = new RegExp(`^${route.path.replace(/\{(?:name|id)\}/, "([^/]+)")}$`);
    const match = pattern.exec(pathname);
    if (route.method === method && match !== null) {
      return { name: name as ApiRouteName, parameter: decodeURIComponent(match[1] ?? "") };
    }
  }
  return undefined;
}

function sendProblem(
  response: ServerResponse,
  { status, ...rest }: Partial<Problem> & { status: number },
): void {
  const problem = { type: "about:blank", title: "Refused", detail: "", code: "refused", ...rest, status };
  response.writeHead(status, { "content-type": "application/problem+json" }).end(JSON.stringify(problem));
}
