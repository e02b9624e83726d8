import http from "node:http";
import { createProxyServer } from "httpxy";
import { agent, nextTarget, port } from "./common.mjs";

const proxy = createProxyServer({ agent, xfwd: true });
http
  .createServer((request, response) => {
    proxy.web(request, response, { target: nextTarget() }).catch(() => response.destroy());
  })
  .listen(port, "127.0.0.1");
