import http from "node:http";
import { createProxyMiddleware } from "http-proxy-middleware";
import { agent, nextTarget, port, targets } from "./common.mjs";

const middleware = createProxyMiddleware({ target: targets[0], router: nextTarget, agent, xfwd: true });
http
  .createServer((request, response) => {
    void middleware(request, response, () => response.writeHead(404).end());
  })
  .listen(port, "127.0.0.1");
