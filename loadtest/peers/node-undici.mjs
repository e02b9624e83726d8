import { Pool } from "undici";
import { createServer, port, targets } from "./common.mjs";

/** node:http in front, an undici pool for each endpoint behind: what is written by hand without a library. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
const pools = targets.map((target) => new Pool(target, { connections: 256 }));
const endToEnd = (headers) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name)));
let turn = 0;

createServer((request, response) => {
  turn = (turn + 1) % pools.length;
  const { method, url: path, headers } = request;
  const body = method === "GET" || method === "HEAD" ? null : request;
  pools[turn]
    .stream({ method, path, headers: endToEnd(headers), body }, ({ statusCode, headers: answered }) => {
      response.writeHead(statusCode, endToEnd(answered));
      return response;
    })
    .catch(() => response.destroy());
}).listen(port, "127.0.0.1");
