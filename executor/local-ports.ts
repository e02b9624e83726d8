import http from "node:http";
import { UserError } from "../base/errors.ts";
import { LocalPortsAnswer, type LocalPortsRequest } from "../model/local-ports.ts";
import { z } from "zod";

/** How long the sidecar may take to open an instance's ports, in milliseconds: a helper process for each. */
const OPEN_MS_MAX = 20_000;

/** The sidecar of this host, asked to open and close the local ports of instances. Errors are thrown, not retried. */
export class LocalPorts {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Resolves when every port listens. */
  async open(request: LocalPortsRequest): Promise<LocalPortsAnswer> {
    const path = `/v1/instances/${encodeURIComponent(request.instanceId)}`;
    return LocalPortsAnswer.parse(await this.#call("PUT", path, request));
  }

  async close(instanceId: string): Promise<void> {
    await this.#call("DELETE", `/v1/instances/${encodeURIComponent(instanceId)}`);
  }

  /** Ids of the instances that have ports open. */
  async list(): Promise<string[]> {
    const answer = Listing.parse(await this.#call("GET", "/v1/instances"));
    return (Array.isArray(answer) ? answer : answer.instances).map(({ instanceId }) => instanceId);
  }

  #call(method: string, path: string, body?: unknown): Promise<unknown> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const request = http.request(
        {
          socketPath: this.#socketPath,
          method,
          path,
          agent: false,
          signal: AbortSignal.timeout(OPEN_MS_MAX),
          headers:
            text === undefined
              ? {}
              : { "content-type": "application/json", "content-length": Buffer.byteLength(text) },
        },
        (response) => {
          let answer = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => (answer += chunk));
          response.on("error", reject);
          response.on("end", () => {
            const status = response.statusCode ?? 0;
            // Closing what is not open is closing it.
            if (status >= 300 && !(method === "DELETE" && status === 404)) {
              reject(
                new UserError(
                  `The sidecar answered ${status} to ${method} ${path}: ${answer.slice(0, 300)}`,
                  {
                    code: "sidecar_refused",
                    status: 502,
                  },
                ),
              );
              return;
            }
            resolve(answer === "" ? undefined : (JSON.parse(answer) as unknown));
          });
        },
      );
      request.on("error", (error) =>
        reject(
          new UserError(`The sidecar cannot be reached on ${this.#socketPath}`, {
            code: "sidecar_away",
            status: 503,
            cause: error,
          }),
        ),
      );
      request.end(text);
    });
  }
}

const Listed = z.array(z.object({ instanceId: z.string() }));
const Listing = z.union([Listed, z.object({ instances: Listed })]);
