import httpProxy from "http-proxy";
import { agent, createServer, nextTarget, port } from "./common.mjs";

const proxy = httpProxy.createProxyServer({ agent, xfwd: true });
proxy.on("error", (_error, _request, response) => response.destroy());
createServer((request, response) => proxy.web(request, response, { target: nextTarget() }))
  .on("upgrade", (request, socket, head) =>
    proxy.ws(request, socket, head, { target: nextTarget(), agent: undefined }),
  )
  .listen(port, "127.0.0.1");
