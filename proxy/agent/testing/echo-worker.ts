import { systemClock } from "../../../base/clock.ts";
import { listenOnHandle } from "../admin.ts";
import http from "node:http";
import net from "node:net";
import { parentChannel, runWorker } from "../worker.ts";

/**
 * A worker for keeper.test.ts. Over HTTP: `/pid` answers at once, `/slow` after 300 ms, `/hang?ms=N` holds up
 * the event loop, `/exit` ends the process without a word. `settings.dieAtOnce` makes every start fail.
 */
const servers = new Map<string, http.Server>();
let leading = false;

function answer(request: http.IncomingMessage, response: http.ServerResponse): void {
  const url = new URL(request.url ?? "/", "http://x");
  const reply = () => response.end(JSON.stringify({ pid: process.pid, leading }));
  if (url.pathname === "/exit") process.exit(7);
  if (url.pathname === "/slow") void systemClock.sleep(300).then(reply);
  else if (url.pathname === "/hang") {
    reply();
    const untilMs = systemClock.nowMs() + Number(url.searchParams.get("ms"));
    setImmediate(() => {
      while (systemClock.nowMs() < untilMs);
    });
  } else reply();
}

runWorker({
  channel: parentChannel(),
  clock: systemClock,
  start: (settings) => {
    if ((settings as { dieAtOnce?: boolean }).dieAtOnce === true) process.exit(3);
    return Promise.resolve({
      listen: (plan, socket, handle) => {
        const server = http.createServer({ keepAliveTimeout: 1_000 }, answer);
        servers.set(`${plan.id}#${socket}`, server);
        return listenOnHandle(server, handle);
      },
      unlisten: async (id) => {
        for (const [name, server] of servers) {
          if (!name.startsWith(`${id}#`)) continue;
          servers.delete(name);
          await new Promise((resolve) => server.close(resolve));
        }
      },
      leave: ({ id, socket }) => {
        // Not http.Server's close, which ends idle connections, too: what was accepted goes on.
        const server = servers.get(`${id}#${socket}`);
        if (server !== undefined) net.Server.prototype.close.call(server);
        servers.delete(`${id}#${socket}`);
      },
      lead: () => {
        leading = true;
      },
      orphaned: () => undefined,
      handOver: () => {
        leading = false;
      },
      reload: () => undefined,
      sibling: () => undefined,
      siblingGone: () => undefined,
      settled: () => undefined,
      state: () => ({ epoch: 1, busy: {}, ejected: {}, traffic: [] }),
      counts: () => Promise.resolve([]),
      keeper: () => undefined,
      drain: async (timeoutMs) => {
        const closing = [...servers.values()].map(
          (server) => new Promise((resolve) => server.close(resolve)),
        );
        for (const server of servers.values()) server.closeIdleConnections();
        await Promise.race([Promise.all(closing), systemClock.sleep(timeoutMs)]);
        return 0;
      },
    });
  },
});
