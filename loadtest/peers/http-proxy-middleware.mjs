import { createProxyMiddleware } from "http-proxy-middleware";
import { agent, createServer, nextTarget, port, targets } from "./common.mjs";

const options = { target: targets[0], router: nextTarget, xfwd: true };
const middleware = createProxyMiddleware({ ...options, agent });
const upgrading = createProxyMiddleware(options);
createServer((request, response) => {
  void middleware(request, response, () => response.writeHead(404).end());
})
  .on("upgrade", upgrading.upgrade)
  .listen(port, "127.0.0.1");
