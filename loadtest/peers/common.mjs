/** node PEER.mjs LISTEN_PORT UPSTREAM_PORT…: what the peers share. Each is what its README tells a user to write. */
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const [listenPort, ...upstreamPorts] = process.argv.slice(2).map(Number);
export const port = listenPort;
export const ports = upstreamPorts;
export const targets = upstreamPorts.map((upstream) => `http://127.0.0.1:${upstream}`);

const { LOADTEST_CERT: cert, LOADTEST_KEY: key } = process.env;
/** For a server over TLS 1.3; undefined for one without TLS. */
export const tls =
  cert === undefined
    ? undefined
    : {
        cert: readFileSync(cert),
        key: readFileSync(key),
        minVersion: "TLSv1.3",
        ALPNProtocols: ["http/1.1"],
      };

export function createServer(handler) {
  return tls === undefined ? http.createServer(handler) : https.createServer(tls, handler);
}

let turn = 0;
/** The next endpoint, in turn: what a user of these libraries would do by hand. */
export function nextTarget() {
  turn = (turn + 1) % targets.length;
  return targets[turn];
}

export const agent = new http.Agent({ keepAlive: true, maxSockets: 256, maxFreeSockets: 256 });
