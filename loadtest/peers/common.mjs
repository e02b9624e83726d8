/** node PEER.mjs LISTEN_PORT UPSTREAM_PORT…: what the peers share. Each is what its README tells a user to write. */
import http from "node:http";

const [listenPort, ...upstreamPorts] = process.argv.slice(2).map(Number);
export const port = listenPort;
export const targets = upstreamPorts.map((upstream) => `http://127.0.0.1:${upstream}`);

let turn = 0;
/** The next endpoint, in turn: what a user of these libraries would do by hand. */
export function nextTarget() {
  turn = (turn + 1) % targets.length;
  return targets[turn];
}

export const agent = new http.Agent({ keepAlive: true, maxSockets: 256, maxFreeSockets: 256 });
